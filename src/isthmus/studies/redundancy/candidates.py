"""The remedies that are tried, and the networks they make: as wide as matches the plain network's parameters."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

import isthmus.discover as discovery
from isthmus.core.errors import SettingError
from isthmus.core.symmetry import Symmetry
from isthmus.zoo.data import Data
from isthmus.zoo.models import function, resolve
from isthmus.zoo.networks import NETWORKS, is_network, parse
from isthmus.zoo.ortho_polynomial import with_polynomials
from isthmus.zoo.remedies import anchored, free_parameters, masked, ordered

_NARROWEST = 4  # units: as many as polynomial degrees and blocks of a mask


# Module, seed of masks and constants, symmetry (None: work on linear layers and convolutions) → changed copy.
Change = Callable[[nn.Module, int, Symmetry | None], nn.Module]


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One remedy.

    Attributes:
        name: what it is called.
        network: of the zoo, where no other model is given.
        settings: of that network, besides inputs, classes, width and depth.
        change: what is done to it; None for nothing.
        own: what is done to a user's own model; None where the remedy is an architecture and no change.
        trained_as: the remedy whose trained networks this one takes over.
        canonical: whether its units are sorted after training.
        growing: whether it starts with one block and gains one at a time.
    """

    name: str
    network: str = "mlp"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    change: Change | None = None
    own: Change | None = None
    trained_as: str | None = None
    canonical: bool = False
    growing: bool = False

    @property
    def fits_any(self) -> bool:
        """Whether it can be tried on a user's own model."""
        return self.own is not None or self.name == "plain" or self.trained_as == "plain"


def _held(name: str, do: Callable[..., nn.Module]) -> Candidate:
    """A remedy that changes any module alike."""

    def change(module: nn.Module, seed: int, symmetry: Symmetry | None) -> nn.Module:
        return do(module, seed=seed, symmetry=symmetry)

    return Candidate(name, change=change, own=change)


def _in_order(module: nn.Module, seed: int, symmetry: Symmetry | None) -> nn.Module:
    return ordered(module, symmetry=symmetry)


def _polynomial(name: str, family: str) -> Candidate:
    """Trained polynomials: for each unit in our own network, in place of the activation layers of a user's."""
    return Candidate(
        name, network="ortho", settings={"family": family, "form": "units"},
        own=lambda module, seed, symmetry: with_polynomials(module, family),
    )  # fmt: skip


REMEDIES: Mapping[str, Candidate] = {
    candidate.name: candidate
    for candidate in (
        Candidate("plain"),
        Candidate("sorted", trained_as="plain", canonical=True),
        Candidate("ordered", change=_in_order, own=_in_order),
        _held("mask", partial(masked, density=0.5)),
        _held("mask-blocks", partial(masked, density=0.5, structure="blocks")),
        _held("frozen", partial(anchored, share=0.5, scale=2.0)),
        _held("frozen-strong", partial(anchored, share=0.75, scale=2.0)),
        _polynomial("chebyshev", "chebyshev"),
        _polynomial("hermite", "hermite"),
        Candidate("legendre-degrees", network="ortho", settings={"family": "legendre", "form": "degrees"}),
        Candidate("modular", network="modular"),
        Candidate("modular-grown", network="modular", growing=True),
    )
}


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """A remedy at the width that matches.

    Attributes:
        candidate: the remedy.
        network: specification of what it is made from.
        settings: of that, the width included.
        width: of its network; None for a model without one, which keeps its size.
        parameters: what training may change.
        make: seed of the initialisation → module; further settings of the network by name.
    """

    candidate: Candidate
    network: str
    settings: Mapping[str, Any]
    width: int | None
    parameters: int
    make: Callable[..., nn.Module]


def matched(candidate: Candidate, data: Data, *, size: int | None, seed: int = 0, model: str | None = None) -> Fitted:
    """The width at which a remedy's free parameters come closest to those of the plain network.

    Args:
        candidate: the remedy.
        data: gives inputs and classes.
        size: width of the plain network: one with two hidden layers, or ``model``; None for a model without a width,
            whose remedies then keep its size: their free parameters are fewer.
        seed: of masks and constants.
        model: a specification of another model, see :func:`isthmus.zoo.models.resolve`.

    Raises:
        SettingError: the size is below 4 units, or the remedy is no change of a model.
    """
    if size is not None and size < _NARROWEST:
        raise SettingError(f"widths must be at least {_NARROWEST} units, got {size}")
    if model is not None and not candidate.fits_any:
        raise SettingError(f"{candidate.name} is an architecture of its own and cannot be tried on {model}")
    spec, settings, change = _source(candidate, data, model)
    example = data.train_inputs[:2].cpu()

    def make(width: int | None, initial: int = 0, **further: Any) -> nn.Module:
        wide = {} if width is None else {"width": width}
        made = resolve(spec, seed=initial, **settings, **wide, **further)
        if change is None:
            return made
        symmetry = discovery.discover(made, example, verify=False) if model is not None else None
        return change(made, seed, symmetry)

    width = size
    if size is not None and (candidate.network != "mlp" or change is not None):
        plain_spec, plain_settings, _ = _source(REMEDIES["plain"], data, model)
        target = free_parameters(resolve(plain_spec, **plain_settings, width=size))
        width = _closest(lambda one: free_parameters(make(one)), target, _NARROWEST, 8 * size)
    named = {name: list(value) if isinstance(value, tuple) else value for name, value in settings.items()}
    wide = {} if width is None else {"width": width}
    return Fitted(candidate, spec, {**named, **wide}, width, free_parameters(make(width)), partial(make, width))


def left_out(names: Sequence[str], data: Data, model: str | None, *, seed: int = 0) -> dict[str, str]:
    """Remedies that cannot be tried on a model, and why: found out before anything is trained."""
    found: dict[str, str] = {}
    for name in names:
        candidate = REMEDIES[name]
        if model is not None and not candidate.fits_any:
            found[name] = "an architecture of its own, no change of a model"
        elif model is not None and candidate.own is not None:
            try:
                matched(candidate, data, size=None, seed=seed, model=model)
            except SettingError as problem:
                found[name] = str(problem)
    return found


def has_width(model: str) -> bool:
    """Whether a specification names a function with a ``width``, so that remedies can be matched in size."""
    if is_network(model):
        kind, short = parse(model)
        default = inspect.signature(NETWORKS[kind]).parameters.get("width")
        # A multiplier of all layers' widths is no width in units.
        return default is not None and isinstance(default.default, int) and "widths" not in short
    library, _, _ = model.partition(":")
    if ":" not in model or library in ("torchvision", "timm"):
        return False
    return "width" in inspect.signature(function(model)).parameters


def _source(candidate: Candidate, data: Data, model: str | None) -> tuple[str, dict[str, Any], Change | None]:
    """What a candidate is made from: a specification, its settings without the width, and the change."""
    shaped = {"inputs": data.shape, "classes": data.classes}
    if model is None:
        return candidate.network, {**shaped, "depth": 2, **candidate.settings}, candidate.change
    if is_network(model):
        kind, short = parse(model)
        return kind, {**shaped, **{name: value for name, value in short.items() if name != "width"}}, candidate.own
    return model, {}, candidate.own


def _closest(parameters: Callable[[int], int], target: int, low: int, high: int) -> int:
    """The width whose parameters come closest to the target; they must grow with it."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters(middle) <= target else (low, middle)
    return min((low, high), key=lambda one: abs(parameters(one) - target))
