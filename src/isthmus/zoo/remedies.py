"""Ways to take the exchange of units away from any module: masks, frozen constants, an order of the units.

Each returns a copy whose weights are computed from free parameters (``torch.nn.utils.parametrize``). The masks and
constants follow from a seed and belong to the architecture, not to the weights: networks that are to be compared or
averaged share them, and they stay out of the state dict.

By default they work on linear layers and convolutions. With the module's ``symmetry`` they work on whatever holds its
exchangeable units: attention, embeddings, transposed convolutions, parameters of the user's own.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from isthmus.core.errors import SettingError, listed
from isthmus.core.randomness import child
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights
from isthmus.zoo.holding import Ascending, Blocks, Held
from isthmus.zoo.ortho_polynomial import parts_of

STRUCTURES = ("entries", "blocks")


def masked(
    module: nn.Module,
    *,
    density: float = 0.5,
    structure: str = "entries",
    blocks: int = 4,
    seed: int = 0,
    layers: Sequence[str] | None = None,
    symmetry: Symmetry | None = None,
) -> nn.Module:
    """Pre-pruning: a copy whose weight matrices and kernels are zero outside a fixed mask.

    What remains is scaled by 1/√density, so that signals keep their size.

    Args:
        module: left as it is.
        density: share of the entries that remain, above 0.
        structure: ``entries``: any entries at random, with at least one in each row and column, where every unit gets a
            pattern of its own; ``blocks``: rows and columns are cut into ``blocks`` parts, and each part of the rows
            reads the same number of parts of the columns (each part of the columns is read), so that units of one
            part remain exchangeable.
        blocks: how many parts.
        seed: of the mask.
        layers: names of the layers; all linear and ungrouped convolutional ones but the last by default.
        symmetry: of the module; then every matrix or kernel that makes or takes its exchangeable units is masked,
            whatever its layer is, tied ones excepted.

    Raises:
        SettingError: a density or structure out of its range, a layer that is not there, or nothing to mask.
    """
    if not 0 < density <= 1:
        raise SettingError(f"density must be above 0 and at most 1, got {density}")
    if structure not in STRUCTURES:
        raise SettingError(f"structure must be one of {listed(STRUCTURES)}, got {structure}")
    result = copy.deepcopy(module)
    for place in _matrices(result, layers, symmetry):
        generator, tensor = child(seed, "mask", place.seed), place.tensor
        made: Held | Blocks
        if structure == "entries":
            made = Held(_random_mask(tensor.shape, density, generator).to(tensor))
        else:
            made = _blocks(tensor.shape, density, blocks, generator)
        with torch.no_grad():
            tensor.div_(math.sqrt(made.share))
        place.hold(made)
    return result


def anchored(
    module: nn.Module,
    *,
    share: float = 0.5,
    scale: float = 1.0,
    seed: int = 0,
    layers: Sequence[str] | None = None,
    symmetry: Symmetry | None = None,
) -> nn.Module:
    """Frozen constants: a copy in which a fixed random share of each layer's weights is held at fixed random numbers.

    Args:
        module: left as it is.
        share: of the entries that are frozen, from 0 to below 1; with at least one free entry in each row and column.
        scale: standard deviation of the constants (κ), in units of He's √(2/fan-in); with a symmetry, which knows no
            fan-in, in units of the tensor's own root mean square, times √2 for the half that a rectifier takes away.
        seed: of positions and constants.
        layers: as for :func:`masked`.
        symmetry: as for :func:`masked`.

    Raises:
        SettingError: a share or scale out of its range, or a layer that is not there.

    Reference: Lim et al., "The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof", arXiv 2405.20231,
        W-asymmetric networks; there κ is absolute and the frozen entries are equally many in each row.
    """
    if not 0 <= share < 1 or scale < 0:
        raise SettingError(f"share must be at least 0 and below 1 and scale 0 or more, got {share} and {scale}")
    result = copy.deepcopy(module)
    for place in _matrices(result, layers, symmetry):
        generator, tensor = child(seed, "frozen", place.seed), place.tensor
        free = _random_mask(tensor.shape, 1 - share, generator)
        unit = 1 / tensor[0].numel() if symmetry is None else float(tensor.detach().double().square().mean())
        deviation = scale * math.sqrt(2 * unit)
        constants = torch.randn(tensor.shape, generator=generator) * deviation * (1 - free)
        place.hold(Held(free.to(tensor), constants.to(tensor)))
    return result


def ordered(
    module: nn.Module,
    *,
    reach: float = 1.0,
    layers: Sequence[str] | None = None,
    symmetry: Symmetry | None = None,
) -> nn.Module:
    """A canonical order that training cannot leave: a copy with ascending biases, by parametrisation.

    Args:
        module: left as it is.
        reach: biases start evenly between −reach and reach.
        layers: as for :func:`masked`, among those with a bias of two or more entries.
        symmetry: of the module; then one vector of each of its groups ascends: a bias where there is one, else a gain,
            which starts about its mean.

    Raises:
        SettingError: no layer, or no group, has such a vector.
    """
    result = copy.deepcopy(module)
    vectors = _biases(result, layers) if symmetry is None else _vectors(result, symmetry)
    if not vectors:
        raise SettingError(f"ordering must have layers with a bias; {type(module).__name__} has none besides its last")
    for place, parts in vectors:
        tensor = place.tensor
        with torch.no_grad():
            for part in parts:
                steps = torch.linspace(-reach, reach, len(part), dtype=tensor.dtype, device=tensor.device)
                tensor[part] = Ascending.parameters_of(tensor[part].mean() + steps)
        place.hold(Ascending(parts))
    return result


def sorted_units(symmetry: Symmetry, weights: Weights) -> dict[str, Tensor]:
    """A canonical order after training: :meth:`Symmetry.canonical`, so that equivalent copies become one.

    Doing the same during training changes nothing: gradient steps commute with permutations (SGD with momentum, Adam),
    so that sorting after every step ends where sorting once at the end does.
    """
    return symmetry.canonical(weights)


def free_parameters(module: nn.Module) -> int:
    """How many numbers training may change: trainable parameters less the entries that masks and constants hold."""
    held = 0
    for layer in module.modules():
        if not isinstance(layer, parametrize.ParametrizationList):
            continue
        for made in layer:
            if isinstance(made, Held | Blocks):
                held += round((1 - made.share) * layer.original.numel())
    return sum(p.numel() for p in module.parameters() if p.requires_grad) - held


@dataclasses.dataclass(frozen=True)
class _Place:
    """A parameter in its module; ``seed`` names its random numbers."""

    owner: nn.Module
    attribute: str
    seed: str

    @property
    def tensor(self) -> nn.Parameter:
        return getattr(self.owner, self.attribute)

    def hold(self, made: nn.Module) -> None:
        parametrize.register_parametrization(self.owner, self.attribute, made)


def _matrices(module: nn.Module, layers: Sequence[str] | None, symmetry: Symmetry | None) -> list[_Place]:
    """The tensors of two or more axes to work on."""
    if symmetry is None:
        return [_Place(layer, "weight", name) for name, layer in _chosen(module, layers)]
    if layers is not None:
        raise SettingError("layers and a symmetry must not both be given: the symmetry says where the units are")
    wanted = {site.tensor for group in symmetry.permutable for site in group.matched}
    found = [place for place in _parameters(module, wanted) if place.tensor.dim() >= 2]
    if not found:
        raise SettingError(f"{type(module).__name__} must have exchangeable units in a matrix or kernel, it has none")
    return found


def _parameters(module: nn.Module, wanted: Collection[str]) -> list[_Place]:
    """Trainable tensors by name; tied ones are left out, which a parametrisation would part."""
    owners: dict[int, list[str]] = {}
    for name, tensor in module.named_parameters(remove_duplicate=False):
        owners.setdefault(id(tensor), []).append(name)
    recurrent = (nn.RNNBase,)  # their kernels keep lists of their own tensors
    found = []
    for names in owners.values():
        path, _, attribute = names[0].rpartition(".")
        owner = module.get_submodule(path)
        if len(names) == 1 and names[0] in wanted and not isinstance(owner, recurrent):
            tensor = getattr(owner, attribute)
            if tensor.requires_grad and tensor.is_floating_point():
                found.append(_Place(owner, attribute, names[0]))
    return found


def _biases(module: nn.Module, layers: Sequence[str] | None) -> list[tuple[_Place, list[list[int]]]]:
    chosen = [(name, layer) for name, layer in _chosen(module, layers) if layer.bias is not None]
    return [
        (_Place(layer, "bias", name), [list(range(len(layer.bias)))])
        for name, layer in chosen
        if layer.bias is not None and len(layer.bias) > 1
    ]


def _vectors(module: nn.Module, symmetry: Symmetry) -> list[tuple[_Place, list[list[int]]]]:
    """For each group entries of one vector, one for each unit, biases first; the parts of one vector together."""
    wanted = {site.tensor for group in symmetry.permutable for site in group.matched}
    places = {place.seed: place for place in _parameters(module, wanted) if place.tensor.dim() == 1}
    parts: dict[str, list[list[int]]] = {}
    # Groups inside units choose first; what holds them has further entries to choose from.
    for group in reversed(symmetry.permutable):
        fit = [(site.tensor, column.tolist()) for site in group.matched if site.tensor in places
               for column in site.index.T]  # fmt: skip
        fit = [
            (name, column)
            for name, column in fit
            if group.size > 1 and not set(column) & {position for part in parts.get(name, []) for position in part}
        ]
        if fit:
            # A bias starts about zero, a gain about one.
            name, column = min(fit, key=lambda one: abs(float(places[one[0]].tensor.detach().double().mean())))
            parts.setdefault(name, []).append(column)
    return [(places[name], found) for name, found in parts.items()]


def _chosen(module: nn.Module, layers: Sequence[str] | None) -> list[tuple[str, nn.Linear | nn.Conv2d]]:
    """The layers to work on, by name."""
    found: dict[str, nn.Linear | nn.Conv2d] = {
        name: layer
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    }
    if layers is None:
        if len(found) < 2:
            raise SettingError(f"{type(module).__name__} must have a hidden linear or convolutional layer, it has none")
        return list(found.items())[:-1]
    if unknown := [name for name in layers if name not in found]:
        raise SettingError(f"layers must be linear or ungrouped convolutions of the module; unknown: {listed(unknown)}")
    return [(name, found[name]) for name in layers]


def _random_mask(shape: torch.Size, density: float, generator: torch.Generator) -> Tensor:
    """1 at a share of the entries, equally many in every row up to one, and at least once in every column."""
    rows, rest = shape[0], math.prod(shape[1:])
    count = max(1, round(density * rest))
    scores = torch.rand(rows, rest, generator=generator)
    mask = torch.zeros(rows, rest).scatter_(1, scores.topk(count, 1).indices, 1.0)
    for column in (mask.sum(0) == 0).nonzero().flatten().tolist():
        mask[int(torch.randint(rows, (), generator=generator)), column] = 1.0
    return mask.view(shape)


def _blocks(shape: torch.Size, density: float, blocks: int, generator: torch.Generator) -> Blocks:
    rows, columns = min(blocks, shape[0]), min(blocks, shape[1])
    if blocks < 1:
        raise SettingError(f"blocks must be at least 1, got {blocks}")
    count = max(1, round(density * columns), math.ceil(columns / rows))
    order = torch.randperm(columns, generator=generator).tolist()
    # Neighbours in a random circle: every part of the columns is read by equally many parts of the rows.
    kept = [[False] * columns for _ in range(rows)]
    for row in range(rows):
        for step in range(count):
            kept[row][order[(row * columns // rows + step) % columns]] = True
    return Blocks(parts_of(shape[0], rows), parts_of(shape[1], columns), kept)
