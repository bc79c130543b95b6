"""Demands that others imply: what lies where its marks say it does need not be held there a second time.

The rows of four gates lie in their gates; where they are read gate by gate, each row already says which gate it is of.
Kept as a parent of its own, a gate would cross the units that hold one row of each gate.
"""

from __future__ import annotations

import numpy as np

from isthmus.discover.hashing import hashed, summed


def simplified(nests: np.ndarray, marks: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Nests and marks of labels without those nests that say nothing new.

    What lies in labels that stand still is told by a mark where it lies. An outer label that the marks of what lies in
    it determine stands still; one that these determine within a further label that holds it moves with that one.
    """
    if not nests.shape[1]:
        return nests, marks
    sums = summed(marks[0], hashed(marks[1]), number).view(np.int64)
    order = np.lexsort((nests[0], nests[2]))
    sorted_nests = nests[:, order]
    starts = np.flatnonzero(np.r_[True, sorted_nests[2, 1:] != sorted_nests[2, :-1]])
    runs = np.split(sorted_nests, starts[1:], axis=1)
    around: dict[bytes, list[np.ndarray]] = {}
    for run in runs:
        around.setdefault(run[0].tobytes(), []).append(run)
    kept, added = [nests[:, :0]], [marks]
    for run in runs:
        mark, above = sums[run[0]], sums[run[1]]
        if _determined(above[None], run[1]) and (run[1] != run[1][0]).any():
            added.append(np.stack([run[0], hashed(run[1], run[2]).view(np.int64)]))
        elif (mark == mark[0]).all() or (run[1] == run[1][0]).all():
            kept.append(run)
        elif _determined(mark[None], run[1]):
            outer = np.unique(run[1])
            added.append(np.stack([outer, hashed(outer).view(np.int64)]))
        elif (further := _further(mark, run, around[run[0].tobytes()])) is not None:
            kept.append(np.unique(np.stack([run[1], further, run[2]]), axis=1))
            named, place = np.unique(run[1], return_inverse=True)
            held = summed(place.reshape(-1), hashed(mark), len(named)).view(np.int64)
            added.append(np.stack([named, held]))
        else:
            kept.append(run)
    return np.concatenate(kept, axis=1), np.concatenate(added, axis=1)


def _further(mark: np.ndarray, run: np.ndarray, others: list[np.ndarray]) -> np.ndarray | None:
    """Outer labels of another kind, within which the marks determine those of a run."""
    count = len(np.unique(run[1]))
    for other in others:
        if other is run or len(np.unique(other[1])) >= count:
            continue
        if _determined(run[1][None], other[1]) and _determined(np.stack([mark, other[1]]), run[1]):
            return other[1]
    return None


def _determined(keys: np.ndarray, values: np.ndarray) -> bool:
    """Whether equal keys go with equal values."""
    return len(np.unique(keys, axis=1).T) == len(np.unique(np.concatenate([keys, values[None]]), axis=1).T)
