"""The matchers of two solutions, by the names that people give them."""

from __future__ import annotations

from torch import Tensor

from isthmus.align import (
    ActivationMatching,
    FrankWolfe,
    Matcher,
    SinkhornMatching,
    StraightThrough,
    SwapRefinement,
    WeightMatching,
)
from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective

BY_WEIGHTS = ("weights", "cosine")
"""Methods that read one tensor after the other, so that nothing larger needs to fit in memory."""
BY_DATA = ("activations", "straight_through", "swaps")
"""Methods that run the network."""
METHODS = (*BY_WEIGHTS, "frank_wolfe", "sinkhorn", *BY_DATA)
_EXAMPLES = 2000  # correlations of unit outputs settle well before this many


def matcher(
    method: str,
    network: Network | None = None,
    inputs: Tensor | tuple[Tensor, ...] | None = None,
    *,
    objective: Objective | None = None,
) -> Matcher:
    """The matcher that a method's name means.

    Args:
        method: one of :data:`METHODS`.
        network: for ``activations``.
        inputs: training inputs for ``activations``, of which the first 2,000 are used.
        objective: for ``straight_through`` and ``swaps``, which lower its loss.

    Raises:
        SettingError: an unknown method, or one that lacks its data.
    """
    if method == "activations" and network is not None and inputs is not None:
        first = tuple(p[:_EXAMPLES] for p in inputs) if isinstance(inputs, tuple) else inputs[:_EXAMPLES]
        return ActivationMatching(network, first)
    if method in ("straight_through", "swaps") and objective is not None:
        return StraightThrough(objective) if method == "straight_through" else SwapRefinement(objective)
    if method in BY_DATA:
        raise SettingError(f"matching by {method} must have data; give some, or match weights")
    known: dict[str, Matcher] = {
        "weights": WeightMatching(),
        "cosine": WeightMatching(kernel="cosine"),
        "frank_wolfe": FrankWolfe(),
        "sinkhorn": SinkhornMatching(),
    }
    if method not in known:
        raise SettingError(f"a method must be one of {', '.join(METHODS)}, got {method}")
    return known[method]
