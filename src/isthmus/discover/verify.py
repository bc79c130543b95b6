"""The proof: permuted random weights must compute the same function."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from isthmus.core.errors import SymmetryError, listed
from isthmus.core.permutation import Permutation
from isthmus.core.symmetry import Proof, Symmetry
from isthmus.core.weights import Weights
from isthmus.discover.exporting import evaluating

Call = Callable[[Weights, tuple[Any, ...], Mapping[str, Any]], list[Tensor]]

_BATCHES = 8  # batches of groups that are permuted together; all groups at once come on top
_SMALL = 4  # units: a uniform draw leaves n units in place once in n! times, too often for so few


def prove(  # noqa: D417
    symmetry: Symmetry,
    call: Call,
    example: tuple[Any, ...],
    keywords: Mapping[str, Any],
    *,
    originals: Weights,
    generator: torch.Generator,
    tolerance: float = 1e-9,
    inputs: int = 2,
    dtype: torch.dtype = torch.float64,
    note: str = "",
) -> Proof:
    """Verify a symmetry by random permutations of random weights.

    Args:
        call: the outputs for weights and inputs.
        originals: the network's own weights: they tell realistic scales, and integers are kept.

    Raises:
        SymmetryError: names the groups that change the function.

    Cost: about 2 × 11 network calls, and one for each doubling of the number of groups of at most four units.
    """
    worst, draws = 0.0, 0
    for number in range(inputs):
        weights = random_weights(originals, generator, dtype)
        example_now = redrawn(example, generator, dtype, keep=number == 0)
        keywords_now = redrawn(dict(keywords), generator, dtype, keep=number == 0)
        before = call(weights, example_now, keywords_now)
        if not any(len(output.unique()) > 1 for output in before if output.numel() > 1):
            note = "; ".join(filter(None, [note, "the outputs are constant for random weights"]))
        for names, permutation in _draws(symmetry, generator, every=number == 0):
            after = call(permutation.apply(weights), example_now, keywords_now)
            error = difference(before, after)
            draws += 1
            worst = max(worst, error)
            if not error <= tolerance:
                _blame(symmetry, call, weights, (example_now, keywords_now), before, names, tolerance, generator)
                raise SymmetryError(
                    f"permutations must not change the network, but together {listed(names)} change it by {error:.1e}; "
                    "please report the module, or pin them by a rule"
                )
    return Proof(worst, tolerance, draws, str(dtype).removeprefix("torch."), note)


def difference(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """The largest change of any output, relative to that output's largest entry; infinite for NaN where none was."""
    worst = 0.0
    for one, other in zip(before, after, strict=True):
        if not one.is_floating_point() and not one.is_complex():
            worst = max(worst, 0.0 if torch.equal(one, other) else math.inf)
            continue
        same = (one == other) | (one.isnan() & other.isnan())
        gap = torch.where(same, 0.0, (one - other).abs())
        scale = one[one.isfinite()].abs().max() if one.isfinite().any() else torch.tensor(1.0)
        change = float(gap.max() / scale.clamp_min(torch.finfo(one.dtype).tiny)) if gap.numel() else 0.0
        worst = max(worst, math.inf if math.isnan(change) else change)
    return worst


def random_weights(originals: Weights, generator: torch.Generator, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random tensors of a trained network's scale: every entry differs, so that no mistake can hide.

    Matrices and kernels have variance 1 / fan-in; vectors spread around their size in the network; tensors that are
    positive in the network (variances, gains) stay positive. Integers and booleans are kept. Tied names stay tied.
    """
    made: dict[int, Tensor] = {}
    result = {}
    for name, tensor in originals.items():
        if not tensor.is_floating_point() and not tensor.is_complex():
            result[name] = tensor
            continue
        key = id(tensor)
        if key not in made:
            made[key] = _random_like(name, tensor, generator, dtype)
        result[name] = made[key]
    return result


def _random_like(name: str, tensor: Tensor, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    shape = tuple(tensor.shape)
    if tensor.is_complex():
        parts = [_random_like(name, part, generator, dtype) for part in (tensor.real, tensor.imag)]
        return torch.complex(*parts)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    positive = tensor.numel() > 0 and tensor.device.type != "meta" and bool((tensor > 0).all())
    if positive or name.endswith(("running_var", "variance")):
        return (0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)).to(dtype)
    if tensor.dim() < 2:
        return (0.5 * noise).to(dtype)
    fan = max(1, tensor[0].numel())
    return (noise / math.sqrt(fan)).to(dtype)


def redrawn(values: Any, generator: torch.Generator, dtype: torch.dtype, *, keep: bool) -> Any:
    """Inputs in the proof's type; other numbers of the same scale where they are floating-point and not kept."""

    def draw(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_complex():
            return torch.complex(draw(value.real), draw(value.imag))
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if keep and value.numel() and float(value.float().std(correction=0)) > 0:
            return value.detach().to("cpu", dtype)
        return torch.randn(value.shape, generator=generator, dtype=torch.float64).to(dtype)

    return pytree.tree_map(draw, values)


def _draws(
    symmetry: Symmetry, generator: torch.Generator, *, every: bool
) -> Iterator[tuple[Sequence[str], Permutation]]:
    """Groups and permutations of them: uniform ones, then those that leave no small group in place."""
    for names in _batches(symmetry, every=every):
        yield names, symmetry.random(generator, groups=names)
    for names in _apart(symmetry) if every else ():
        yield names, _moving(symmetry, names, generator)


def _apart(symmetry: Symmetry) -> list[list[str]]:
    """Sets of the small groups: each group is in one at least, and of any two there is one with only one of them.

    Group number n is in set number b where bit b of n is set. So a group that may not move at all is seen, and so are
    two that may only move together, whatever is drawn.
    """
    small = [group.name for group in symmetry.permutable if group.size <= _SMALL]
    bits = range(len(small).bit_length())
    return [[name for number, name in enumerate(small, 1) if number >> bit & 1] for bit in bits]


def _moving(symmetry: Symmetry, names: Sequence[str], generator: torch.Generator) -> Permutation:
    """A random permutation that leaves none of these groups in place."""
    drawn = symmetry.random(generator, groups=names)
    indices = {name: drawn[name] for name in names}
    still = {name: index.roll(1) for name, index in indices.items() if torch.equal(index, torch.arange(len(index)))}
    return Permutation(symmetry, {**indices, **still})


def _batches(symmetry: Symmetry, *, every: bool) -> list[list[str]]:
    names = [group.name for group in symmetry.permutable]
    if not every or len(names) < 2:
        return [names]
    step = max(1, math.ceil(len(names) / _BATCHES))
    return [*(names[start : start + step] for start in range(0, len(names), step)), names]


def _blame(  # noqa: PLR0917
    symmetry: Symmetry,
    call: Call,
    weights: Weights,
    arguments: tuple[tuple[Any, ...], Mapping[str, Any]],
    before: Sequence[Tensor],
    names: Sequence[str],
    tolerance: float,
    generator: torch.Generator,
) -> None:
    """Find the groups that change the function on their own, by halving."""
    guilty: list[tuple[str, float]] = []
    waiting = [list(names)]
    while waiting and len(guilty) < 8:
        part = waiting.pop()
        after = call(_moving(symmetry, part, generator).apply(weights), *arguments)
        error = difference(before, after)
        if error <= tolerance or not part:
            continue
        if len(part) == 1:
            guilty.append((part[0], error))
        else:
            waiting += [part[: len(part) // 2], part[len(part) // 2 :]]
    if guilty:
        found = listed([f"{name} (relative error {error:.1e})" for name, error in guilty])
        raise SymmetryError(f"permutations must not change the network, but these groups do: {found}")


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """The same random numbers for every call of a network that draws some even in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def check_tied(weights: Weights, tied: Mapping[str, str]) -> None:
    """Names of one tensor must still hold the same numbers."""
    if parted := [name for name, first in tied.items() if not torch.equal(weights[name], weights[first])]:
        raise SymmetryError(f"tied tensors must be permuted alike, but these come apart: {listed(parted)}")


def _doubled(module: nn.Module) -> set[str]:
    """Further names of places that have one already: a layer in two places of a module, whose tensors it holds once.

    Put in under both names, they would be put back in the wrong order, and the module would keep the stand-ins.
    """
    places: set[tuple[int, str]] = set()
    names = set()
    for path, part in module.named_modules(remove_duplicate=False):
        for name in (*part._parameters, *part._buffers):
            if (id(part), name) in places:
                names.add(f"{path}.{name}" if path else name)
            places.add((id(part), name))
    return names


def module_call(module: nn.Module, *, gradients: bool = False) -> Call:
    """Outputs of the module itself, in evaluation mode."""
    state = module.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    tied = {name: first[id(tensor)] for name, tensor in state.items() if first.setdefault(id(tensor), name) != name}
    doubled = _doubled(module)

    def call(weights: Weights, example: tuple[Any, ...], keywords: Mapping[str, Any]) -> list[Tensor]:
        check_tied(weights, tied)
        weights = {name: tensor for name, tensor in weights.items() if name not in doubled}
        with torch.set_grad_enabled(gradients), evaluating(module), repeatable():
            output = torch.func.functional_call(module, weights, example, dict(keywords), tie_weights=False)
        return [part for part in pytree.tree_leaves(output) if isinstance(part, Tensor)]

    return call
