"""The symmetry of any module: export, interpret, group, prove."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from isthmus.core.errors import SettingError, SymmetryError
from isthmus.core.randomness import child
from isthmus.core.symmetry import Kind, Role, Symmetry, UnitGroup
from isthmus.discover.exchange import approved_by, exchanged, proposals, unproved
from isthmus.discover.exporting import accepting, exported
from isthmus.discover.forest import grow
from isthmus.discover.grouping import groups_of
from isthmus.discover.interpreter import interpret, interpretable
from isthmus.discover.ledger import Ledger
from isthmus.discover.narrow import check_alike, narrow_copy
from isthmus.discover.proving import call_of, proof_of
from isthmus.discover.rules import Rule
from isthmus.discover.scaling import factor_groups, order_of_use
from isthmus.discover.trial import Probe
from isthmus.discover.verify import random_weights, redrawn


def discover(
    module: nn.Module,
    example: Any,
    *,
    keywords: Mapping[str, Any] | None = None,
    rules: Mapping[str, Rule] | None = None,
    kinds: Sequence[Kind] = ("permutation",),
    verify: bool = True,
    narrow: nn.Module | None = None,
    generator: torch.Generator | None = None,
    tolerance: float = 1e-9,
) -> Symmetry:
    """Every group of hidden units of a module that may be exchanged without changing its function, proved.

    The module is exported in evaluation mode and its graph interpreted with labels instead of numbers; then random
    permutations of random weights must leave its outputs as they are. What an operation without a rule touches is
    pinned and named in the result's ``obstacles``. Modules that do the same beside each other (a list of experts, heads
    that are modules, branches that are summed) are units if computing says that their exchange changes nothing.

    Args:
        module: any module that ``torch.export`` accepts; it is left as it was.
        example: an input, or a tuple of inputs. Only shapes, types and devices count.
        keywords: further inputs by name.
        rules: rules for operations that have none, or other rules: ``{"namespace.operation": rule}``. A rule is called
            with a :class:`~isthmus.discover.ledger.Ledger` and the operation's own arguments, tensors as
            :class:`~isthmus.discover.labels.Labels`, and returns the labels of the outputs.
        kinds: ``permutation``, and ``scale`` (positive factors) and ``sign`` (flips) of single units where asked for:
            groups of their own, found by derivatives and checked by computing, whatever ``verify`` says. Scales are
            complete (whole powers up to 2) for units of permutation groups and for units that are tied but cannot be
            exchanged, as the pairs that rotary embeddings turn; of signs, flips of all sites, of all but gains, and
            those that scales suggest are tried. The function is that in evaluation mode: a kernel before a
            BatchNorm scales with the running mean against the gain, which is exact, and not with the running
            variance, which ε would break.
        verify: prove the result; without, ``proof`` is None.
        narrow: for a module on the meta device, a narrow network of the same architecture that takes the same example
            and on which the proof is run; one is made where the module has a configuration that says its widths.
        generator: draws the proof's weights and permutations; a fixed one by default.
        tolerance: the largest relative change of an output that passes.

    Raises:
        SymmetryError: the module cannot be exported (with its own file and line), or the proof fails (with the groups).

    Cost: the export, less than as much again, and about 20 network calls in float64 for the proof.

    Example:
        >>> symmetry = discover(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.zeros(2, 4))
        >>> [(group.name, group.size) for group in symmetry.groups]
        [('0', 3)]
    """
    if unknown := set(kinds) - {"permutation", "scale", "sign"}:
        raise SettingError(f"kinds must be permutation, scale or sign, got {', '.join(sorted(unknown))}")
    inputs = example if isinstance(example, tuple) else (example,)
    named = dict(keywords or {})
    program = interpretable(exported(module, inputs, named))
    ledger = interpret(program, rules or {})
    symmetry = solved(ledger, module)
    generator = generator if generator is not None else child(0, "discover", "proof")
    if {"scale", "sign"} & set(kinds):
        others = solved(ledger.unmarked(), module).groups
        with accepting(module, inputs, named):
            made = _factors(symmetry, others, module, program, inputs, named, kinds, generator, tolerance)
        kept = symmetry.groups if "permutation" in kinds else ()
        symmetry = dataclasses.replace(symmetry, groups=(*kept, *made))
    elif "permutation" not in kinds:
        raise SettingError("kinds must name at least one of permutation, scale and sign, got none")
    proposed = _proposed(ledger, module, program, rules) if "permutation" in kinds else []
    if any(tensor.device.type == "meta" for tensor in module.state_dict().values()):
        if not verify:
            return unproved(symmetry, proposed)
        return _proved_by_narrow(module, narrow, symmetry, proposed, inputs, named, rules, generator, tolerance)
    with accepting(module, inputs, named):
        given = (inputs, named)
        symmetry = exchanged(symmetry, proposed, module, program, given, generator=generator, tolerance=tolerance)
        if not verify:
            return symmetry
        proof = proof_of(symmetry, module, program, inputs, named, generator=generator, tolerance=tolerance)
    return dataclasses.replace(symmetry, proof=proof)


def _proposed(
    ledger: Ledger, module: nn.Module, program: ExportedProgram, rules: Mapping[str, Rule] | None
) -> list[UnitGroup]:
    """Whole modules that may be units, as far as the graph says."""
    state = module.state_dict(keep_vars=True)
    return proposals(program, ledger, rules=rules or {}, roles=_roles(module, state), aliases=aliases_of(state))


def _factors(  # noqa: PLR0917
    symmetry: Symmetry,
    others: Sequence[UnitGroup],
    module: nn.Module,
    program: ExportedProgram,
    example: tuple[Any, ...],
    keywords: Mapping[str, Any],
    kinds: Sequence[Kind],
    generator: torch.Generator,
    tolerance: float,
) -> list[UnitGroup]:
    """Scale and sign groups, found by derivatives and checked by computing."""
    originals = dict(module.state_dict(keep_vars=True))
    if any(tensor.device.type == "meta" for tensor in originals.values()):
        raise SymmetryError(
            "scales and signs are found by computing, but the module is on the meta device; load its weights"
        )

    def draw() -> tuple[dict[str, Tensor], tuple[Any, ...], dict[str, Any]]:
        inputs, named = redrawn((example, dict(keywords)), generator, torch.float64, keep=False)
        return random_weights(originals, generator, torch.float64), inputs, named

    probe = Probe(
        call_of(module, program)[0],
        call_of(module, program, gradients=True)[0],
        draw,
        order_of_use(program),
        aliases_of(originals),
        tolerance,
    )
    return factor_groups(symmetry, others, probe, kinds, generator)


def _proved_by_narrow(  # noqa: PLR0917
    module: nn.Module,
    narrow: nn.Module | None,
    wide: Symmetry,
    proposed: Sequence[UnitGroup],
    example: tuple[Any, ...],
    keywords: Mapping[str, Any],
    rules: Mapping[str, Rule] | None,
    generator: torch.Generator,
    tolerance: float,
) -> Symmetry:
    """A symmetry with the proof of a stand-in for a module that has no numbers to compute with."""
    said = ""
    if narrow is None:
        made = narrow_copy(module)
        if made is None:
            raise SymmetryError(
                f"the proof must have numbers to compute with, but {type(module).__name__} is on the meta device; a "
                "narrow network of the same architecture can be given as narrow=, or verify=False"
            )
        narrow, said = made
    inputs, named = pytree.tree_map(_on_cpu, (example, dict(keywords)))
    program = interpretable(exported(narrow, inputs, named))
    ledger = interpret(program, rules or {})
    own = _proposed(ledger, narrow, program, rules)
    given = (inputs, named)
    symmetry = exchanged(solved(ledger, narrow), own, narrow, program, given, generator=generator, tolerance=tolerance)
    wide = approved_by(symmetry, wide, proposed)
    check_alike(wide, symmetry)
    proof = proof_of(symmetry, narrow, program, inputs, named, generator=generator, tolerance=tolerance)
    note = f"proved on a narrow copy of the same architecture ({said or type(narrow).__name__})"
    proof = dataclasses.replace(proof, note="; ".join(filter(None, [note, proof.note])))
    return dataclasses.replace(wide, proof=proof)


def _on_cpu(value: Any) -> Any:
    """A meta input made real: ones, which every table of tokens has."""
    if isinstance(value, Tensor) and value.device.type == "meta":
        return torch.ones(value.shape, dtype=value.dtype)
    return value


def solved(ledger: Ledger, module: nn.Module) -> Symmetry:
    """The symmetry that the demands of a module's graph leave."""
    state = module.state_dict(keep_vars=True)
    groups = groups_of(ledger, grow(ledger), _roles(module, state), aliases_of(state))
    tensors = {name: tuple(tensor.shape) for name, tensor in state.items() if isinstance(tensor, Tensor)}
    if unknown := [site.tensor for group in groups for site in group.sites if site.tensor not in tensors]:
        raise SymmetryError(f"units must lie in tensors of the state dict, got {unknown[0]}")
    return Symmetry(groups, tensors, _joined(ledger.obstacles))


def _roles(module: nn.Module, state: Mapping[str, Any]) -> dict[str, Role]:
    """Trainable tensors count in an alignment; everything else moves along."""
    return {name: "match" if isinstance(tensor, nn.Parameter) else "carry" for name, tensor in state.items()}


def aliases_of(state: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of one tensor, by each of its names."""
    by_tensor: dict[int, list[str]] = {}
    for name, tensor in state.items():
        by_tensor.setdefault(id(tensor), []).append(name)
    return {name: [n for n in names if n != name] for names in by_tensor.values() for name in names if len(names) > 1}


def _joined(obstacles: Sequence[Any]) -> tuple[Any, ...]:
    """Obstacles without repetitions."""
    return tuple(dict.fromkeys(obstacles))
