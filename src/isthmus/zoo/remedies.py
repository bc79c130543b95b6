"""Ways to take the exchange of units away from any module: masks, frozen constants, an order of the units.

Each returns a copy whose weights are computed from free parameters (``torch.nn.utils.parametrize``). The masks and
constants follow from a seed and belong to the architecture, not to the weights: networks that are to be compared or
averaged share them, and they stay out of the state dict.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from isthmus.core.errors import SettingError, listed
from isthmus.core.randomness import child
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights
from isthmus.zoo.ortho_polynomial import parts_of

STRUCTURES = ("entries", "blocks")


class Held(nn.Module):
    """Entries of a tensor that are held at constants: ``free`` is 1 where the parameter counts, ``held`` adds to it."""

    free: Tensor
    held: Tensor | None

    def __init__(self, free: Tensor, held: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("free", free, persistent=False)
        self.register_buffer("held", held, persistent=False)

    def forward(self, original: Tensor) -> Tensor:
        """The tensor that the layer uses."""
        free = original * self.free
        return free if self.held is None else free + self.held

    @property
    def share(self) -> float:
        """The share of entries that are free."""
        return float(self.free.float().mean())


class Blocks(nn.Module):
    """Blocks of a matrix or kernel that are zero; made by slices, so that units of one block are seen to be alike."""

    def __init__(self, rows: Sequence[int], columns: Sequence[int], kept: Sequence[Sequence[bool]]) -> None:
        super().__init__()
        self.rows, self.columns, self.kept = list(rows), list(columns), [list(row) for row in kept]

    def forward(self, original: Tensor) -> Tensor:
        """The tensor that the layer uses."""
        bands = []
        for band, kept in zip(original.split(self.rows, 0), self.kept, strict=True):
            cells = band.split(self.columns, 1)
            bands.append(torch.cat([cell if yes else cell * 0.0 for cell, yes in zip(cells, kept, strict=True)], 1))
        return torch.cat(bands, 0)

    @property
    def share(self) -> float:
        """The share of entries that are free."""
        kept = sum(
            rows * columns
            for rows, row in zip(self.rows, self.kept, strict=True)
            for columns, yes in zip(self.columns, row, strict=True)
            if yes
        )
        return kept / (sum(self.rows) * sum(self.columns))


class Ascending(nn.Module):
    """A vector that ascends whatever its parameters are: the first entry, then steps softplus(δ) > 0."""

    def forward(self, original: Tensor) -> Tensor:
        """The vector that the layer uses."""
        return torch.cat([original[:1], original[:1] + functional.softplus(original[1:]).cumsum(0)])


def masked(
    module: nn.Module,
    *,
    density: float = 0.5,
    structure: str = "entries",
    blocks: int = 4,
    seed: int = 0,
    layers: Sequence[str] | None = None,
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

    Raises:
        SettingError: a density or structure out of its range, or a layer that is not there.
    """
    if not 0 < density <= 1:
        raise SettingError(f"density must be above 0 and at most 1, got {density}")
    if structure not in STRUCTURES:
        raise SettingError(f"structure must be one of {listed(STRUCTURES)}, got {structure}")
    result = copy.deepcopy(module)
    for name, layer in _chosen(result, layers):
        generator = child(seed, "mask", name)
        weight = layer.weight
        made: Held | Blocks
        if structure == "entries":
            made = Held(_random_mask(weight.shape, density, generator).to(weight))
        else:
            made = _blocks(weight.shape, density, blocks, generator)
        with torch.no_grad():
            weight.div_(math.sqrt(made.share))
        parametrize.register_parametrization(layer, "weight", made)
    return result


def anchored(
    module: nn.Module, *, share: float = 0.5, scale: float = 1.0, seed: int = 0, layers: Sequence[str] | None = None
) -> nn.Module:
    """Frozen constants: a copy in which a fixed random share of each layer's weights is held at fixed random numbers.

    Args:
        module: left as it is.
        share: of the entries that are frozen, from 0 to below 1; with at least one free entry in each row and column.
        scale: standard deviation of the constants (κ), in units of He's √(2/fan-in).
        seed: of positions and constants.
        layers: as for :func:`masked`.

    Raises:
        SettingError: a share or scale out of its range, or a layer that is not there.

    Reference: Lim et al., "The Empirical Impact of Neural Parameter Symmetries, or Lack Thereof", arXiv 2405.20231,
        W-asymmetric networks; there κ is absolute and the frozen entries are equally many in each row.
    """
    if not 0 <= share < 1 or scale < 0:
        raise SettingError(f"share must be at least 0 and below 1 and scale 0 or more, got {share} and {scale}")
    result = copy.deepcopy(module)
    for name, layer in _chosen(result, layers):
        generator = child(seed, "frozen", name)
        weight = layer.weight
        free = _random_mask(weight.shape, 1 - share, generator)
        deviation = scale * math.sqrt(2 / weight[0].numel())
        constants = torch.randn(weight.shape, generator=generator) * deviation * (1 - free)
        parametrize.register_parametrization(layer, "weight", Held(free.to(weight), constants.to(weight)))
    return result


def ordered(module: nn.Module, *, reach: float = 1.0, layers: Sequence[str] | None = None) -> nn.Module:
    """A canonical order that training cannot leave: a copy whose layers have ascending biases, by parametrisation.

    Args:
        module: left as it is.
        reach: biases start evenly between −reach and reach.
        layers: as for :func:`masked`, among those with a bias of two or more entries.

    Raises:
        SettingError: no layer has such a bias.
    """
    result = copy.deepcopy(module)
    found = [layer for _, layer in _chosen(result, layers) if layer.bias is not None and len(layer.bias) > 1]
    if not found:
        raise SettingError(f"ordering must have layers with a bias; {type(module).__name__} has none besides its last")
    for layer in found:
        bias = layer.bias
        assert bias is not None  # chosen above
        step = 2 * reach / (len(bias) - 1)
        with torch.no_grad():
            bias.fill_(math.log(math.expm1(step)))  # the inverse of softplus
            bias[0] = -reach
        parametrize.register_parametrization(layer, "bias", Ascending())
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
