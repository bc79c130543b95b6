"""The library's mergers as families for a search, over given solutions: which settings may vary, and where to begin."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from isthmus.core.errors import SettingError
from isthmus.core.weights import Weights
from isthmus.merge.average import SLERP, Weighted
from isthmus.merge.fisher import Fisher
from isthmus.merge.front import Family, Settings
from isthmus.merge.merger import BatchStatisticsWarning, average, check_solutions, merge_tensors
from isthmus.merge.projection import OrthogonalProjection
from isthmus.merge.protection import ProtectSpecific
from isthmus.merge.task_vectors import DARE, TIES, MagnitudeMax, ModelBreadcrumbs, TaskArithmetic

Importances = Sequence[Mapping[str, Tensor]]


def families(
    solutions: Sequence[Weights], *, base: Weights | None = None, importances: Importances | None = None, seed: int = 0
) -> list[Family]:
    """Each solution as it is, the averages, and with a base the mergers of task vectors; hybrids among them.

    Args:
        solutions: at least two.
        base: what they were trained from; without one only averages and the hybrid over their mean are tried.
        importances: diagonal Fisher information of each solution, for Fisher averaging and for the hybrid
            ``protect_fisher``.
        seed: of random masks.

    Raises:
        WeightsError: the solutions do not fit each other.
    """
    check_solutions(solutions, base=base, least=2)
    # "model 2" is the second solution as it is: what is compared with, and sometimes the best there is.
    made = [Family(f"model {place + 1}", lambda _, own=weights: dict(own)) for place, weights in enumerate(solutions)]
    made.append(_weighted("linear", solutions, lambda shares, _: Weighted(shares)(solutions)))
    if len(solutions) == 2:
        steps = tuple({"t": t} for t in (0.5, 0.3, 0.7))
        made.append(Family("slerp", lambda s: SLERP(s["t"])(solutions), {"t": (0.0, 1.0)}, steps))
    protected = {"protected": (0.0, 0.6), "scale": (0.2, 1.5)}
    begin = _grid(protected=(0.1, 0.3, 0.03), scale=(1.0,))
    made.append(
        _weighted(
            "protect", solutions,
            lambda shares, s: ProtectSpecific(s["protected"], s["scale"], shares)(solutions, base=base),
            protected, begin,
        )
    )  # fmt: skip
    if importances is not None:
        made += _informed(solutions, base, importances, protected, begin)
    return made if base is None else made + _task_vectors(solutions, base, seed)


def layerwise(
    solutions: Sequence[Weights], start: Settings | None = None, *, base: Weights | None = None, most: int = 8
) -> Family:
    """A weight for every solution in every part of the network.

    With a base, base + Σ wᵢ·(solutionᵢ − base) with wᵢ of each part's own; without, Σ wᵢ·solutionᵢ / Σ wᵢ.

    Args:
        solutions: at least two.
        start: settings of a ``linear`` or ``task_arithmetic`` trial to begin with; equal weights by default.
        base: what they were trained from.
        most: parts into which the layers are divided, in their order, about equally many entries in each.

    Raises:
        SettingError: fewer than one part.
        WeightsError: fewer than two solutions, or they do not fit together.

    Reference: Yang et al., "AdaMerging" (2310.02575), for layer-wise coefficients; here they are searched for.
    """
    check_solutions(solutions, base=base, least=2)
    parts = layer_parts(solutions[0], most=most)
    count = 1 + max(parts.values())
    equal = 1 / len(solutions) if base is not None else 1.0
    begin = {_name(place): (start or {}).get(_name(place), equal) for place in range(len(solutions))}

    def make(settings: Settings) -> Weights:
        def rule(name: str, tensors: list[Tensor]) -> Tensor:
            part = parts.get(name, 0)
            shares = [settings[f"{_name(place)}, part {part + 1}"] for place in range(len(solutions))]
            if base is None:
                return average(tensors, shares if sum(shares) > 1e-6 else None)
            *wide, origin = tensors
            total = origin.clone()
            for tensor, share in zip(wide, shares, strict=True):
                total.add_(tensor - origin, alpha=share)
            return total

        return _quietly(lambda: merge_tensors(solutions, rule, base=base))

    names = [(place, part) for part in range(count) for place in range(len(solutions))]
    starts = [{f"{_name(place)}, part {part + 1}": begin[_name(place)] for place, part in names}]
    # One solution's early parts with another's late ones: networks often differ in what a layer is for.
    for edge in sorted({max(1, round(count * share)) for share in (0.25, 0.5, 0.75)} - {count}):
        for early, late in itertools.permutations(range(len(solutions)), 2):
            weight = {(place, part): float(place == (early if part < edge else late)) for place, part in names}
            starts.append({f"{_name(p)}, part {part + 1}": weight[p, part] for p, part in names})
    top = 1.2 if base is not None else 1.0
    ranges = {f"{_name(place)}, part {part + 1}": (0.0, top) for place, part in names}
    return Family("layerwise", make, ranges, tuple(starts))


def layer_parts(weights: Weights, *, most: int = 8) -> dict[str, int]:
    """The part of the network that each floating tensor belongs to, counted from 0, layers in their order.

    Tensors of one layer (the name up to its last dot) stay together; the last layer has a part of its own.

    Raises:
        SettingError: fewer than one part.
    """
    sizes: dict[str, int] = {}
    layer_of = {name: name.rpartition(".")[0] for name, tensor in weights.items() if tensor.is_floating_point()}
    for name, layer in layer_of.items():
        sizes[layer] = sizes.get(layer, 0) + weights[name].numel()
    if most < 1:
        raise SettingError(f"most must be at least 1 part, got {most}")
    layers = list(sizes)
    body = layers[:-1] if len(layers) > 1 and most > 1 else layers
    total, before, numbers = sum(sizes[layer] for layer in body), 0, {}
    pieces = min(len(body), most - (len(body) < len(layers)))
    for layer in body:
        numbers[layer] = min(pieces - 1, int(pieces * (before + sizes[layer] / 2) / max(1, total)))
        before += sizes[layer]
    order = {number: place for place, number in enumerate(dict.fromkeys(numbers.values()))}
    found = {layer: order[number] for layer, number in numbers.items()}
    found.update({layer: len(order) for layer in layers if layer not in found})
    return {name: found[layer] for name, layer in layer_of.items()}


def _informed(
    solutions: Sequence[Weights], base: Weights | None, importances: Importances,
    protected: Mapping[str, tuple[float, float]], begin: Sequence[Settings],
) -> list[Family]:  # fmt: skip
    """What needs the diagonal Fisher information."""
    fisher = Fisher(())
    return [
        _weighted("fisher", solutions, lambda shares, _: fisher.weighted(solutions, importances, shares)),
        _weighted(
            "protect_fisher", solutions,
            lambda shares, s: ProtectSpecific(s["protected"], s["scale"], shares, importances)(solutions, base=base),
            protected, begin,
        ),
    ]  # fmt: skip


def _task_vectors(solutions: Sequence[Weights], base: Weights, seed: int) -> list[Family]:
    """Mergers of the differences from a base."""
    count = len(solutions)
    top, middle = (0.05, 1.5), (0.5, 0.8, 1.0)
    free = {_name(place): (0.0, 1.2) for place in range(count)}
    equal = [dict.fromkeys(free, value) for value in (1 / count, 0.5, 0.7, 1.0)]
    alone = [{name: (1.0 if name == other else 0.3) for name in free} for other in free]
    sparse, dense = {"density": (0.02, 1.0), "scale": top}, _grid(density=(0.2, 0.5), scale=(1.0, 0.6))

    def weights(settings: Settings) -> tuple[float, ...]:
        return tuple(settings[name] for name in free)

    def family(name: str, make: Callable[[Settings], Any], ranges: Any, starts: Sequence[Settings]) -> Family:
        return Family(name, lambda s: _quietly(lambda: make(s)(solutions, base=base)), ranges, tuple(starts))

    return [
        family("task_arithmetic", lambda s: TaskArithmetic(1.0, weights(s)), free, [*equal, *alone]),
        family("ties", lambda s: TIES(s["density"], s["scale"]), sparse, dense),
        family(
            "dare", lambda s: DARE(s["density"], scale=s["scale"], seed=seed), sparse,
            _grid(density=(0.5, 0.8), scale=(0.5, 0.8)),
        ),
        family("magnitude_max", lambda s: MagnitudeMax(s["scale"]), {"scale": top}, _grid(scale=middle[::-1])),
        family(
            "breadcrumbs", lambda s: ModelBreadcrumbs(s["density"], scale=s["scale"]), sparse,
            _grid(density=(0.85,), scale=(0.5, 0.8)),
        ),
        family(
            "orthogonal_projection", lambda s: OrthogonalProjection(s["share"], s["scale"]),
            {"share": (0.05, 1.0), "scale": top}, _grid(share=(0.5, 0.9, 0.2), scale=(1.0,)),
        ),
    ]  # fmt: skip


def _weighted(
    name: str,
    solutions: Sequence[Weights],
    make: Callable[[tuple[float, ...], Settings], Weights],
    more: Mapping[str, tuple[float, float]] | None = None,
    begin: Sequence[Settings] = ({},),
) -> Family:
    """A family with one weight for each solution, of which only the ratios count, and further settings."""
    count = len(solutions)
    free = [_name(place) for place in range(count)]
    if count == 2:
        mixes = [{free[0]: 1 - t, free[1]: t} for t in (0.5, 0.4, 0.6, 0.25, 0.75)]
    else:
        mixes = [dict.fromkeys(free, 1.0), *({n: (1.0 if n == own else 0.4) for n in free} for own in free)]
    starts = [{**mix, **rest} for rest in begin for mix in (mixes if rest is begin[0] else mixes[:1])]

    def made(settings: Settings) -> Weights:
        shares = tuple(settings[key] for key in free)
        # All weights at zero say nothing about the solutions' ratio.
        shares = shares if sum(shares) > 1e-6 else (1.0,) * count
        return _quietly(lambda: make(shares, settings))

    return Family(name, made, {**dict.fromkeys(free, (0.0, 1.0)), **(more or {})}, tuple(starts))


def _grid(**values: Sequence[float]) -> list[dict[str, float]]:
    return [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]


def _name(place: int) -> str:
    return f"weight {place + 1}"


def _quietly(make: Callable[[], Weights]) -> Weights:
    """Running statistics are the caller's matter: he is told of them once, not for every trial."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BatchStatisticsWarning)
        return make()
