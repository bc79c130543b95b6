"""Checkpoints brought into the first one's order and written as they were: own names, precision, files and shards.

Where a method looks at weights alone and all files are safetensors, tensors are read when they are needed and written
shard by shard, so that checkpoints larger than memory can be aligned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from isthmus.align import (
    CycleConsistent,
    ManyMatch,
    Match,
    SimplexStraightThrough,
    WeightMatching,
    to_mean,
    to_reference,
)
from isthmus.core.errors import SettingError, WeightsError
from isthmus.core.history import Lineage, stamped
from isthmus.core.losses import answers
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, silent
from isthmus.core.randomness import child
from isthmus.core.record import Record
from isthmus.core.symmetry import Permutation, Symmetry, UnitGroup
from isthmus.core.symmetry_file import save_permutation
from isthmus.core.weights import Weights, check_finite
from isthmus.merge.parents import parents_of
from isthmus.studies.matchers import BY_DATA, BY_WEIGHTS, matcher
from isthmus.studies.rewriting import opened, target_names, written
from isthmus.zoo.models import weights_of

Method = Literal["weights", "cosine", "frank_wolfe", "sinkhorn", "activations", "straight_through", "swaps"]
Together = Literal["reference", "mean", "universe", "simplex"]


@dataclasses.dataclass(frozen=True, eq=False)
class AlignedCheckpoint(Record):
    """One checkpoint in the first one's order.

    Attributes:
        source: where it was read.
        file: where it was written.
        permutation: where its permutation was written.
        match: how it was found; ``None`` where all were matched together.
        stayed: the share of units that were in place already.
        largest_change: of the output, relative to the largest output; ``None`` if it was not checked.
    """

    source: str
    file: str
    permutation: str
    match: Match | None
    stayed: float
    largest_change: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Alignment(Record):
    """Checkpoints brought into the first one's order.

    Attributes:
        fixed: the first one.
        method: what was compared.
        together: how more than two were treated.
        aligned: the others.
        measure: what the objective is, in words.
        objective: what was reached over all.
        identity_objective: without permuting.
        log10_size: log10 of the number of permutations there are.
        provenance: versions, machine, command.
    """

    fixed: str
    method: str
    together: str
    aligned: tuple[AlignedCheckpoint, ...]
    measure: str
    objective: float
    identity_objective: float
    log10_size: float
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Manner:
    """How checkpoints are to be aligned.

    Attributes:
        method: what is compared: ``weights`` (or their ``cosine``), ``activations``, soft permutations by
            ``frank_wolfe`` or ``sinkhorn``, or the loss in the middle by ``straight_through`` or ``swaps``.
        together: each to the first (``reference``), to the ``mean`` of the others, all through a ``universe``, or by
            the loss on the ``simplex``.
        scale: ``unit``: weights are compared after every unit with a free positive scale got incoming weights of
            length one; the symmetry must hold scale groups.
        seed: of what is drawn at random.
    """

    method: Method = "weights"
    together: Together = "reference"
    scale: Literal["as_is", "unit"] = "as_is"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in (known := get_args(Method)):
            raise SettingError(f"method must be one of {', '.join(known)}, got {self.method}")
        if self.together not in (known := get_args(Together)):
            raise SettingError(f"together must be one of {', '.join(known)}, got {self.together}")
        if self.together in ("universe", "simplex") and self.method != "weights":
            raise SettingError(f"together={self.together} is a method of its own; leave method out, got {self.method}")
        if self.scale not in ("as_is", "unit"):
            raise SettingError(f"scale must be as_is or unit, got {self.scale}")
        if self.scale == "unit" and (self.method not in BY_WEIGHTS or self.together in ("universe", "simplex")):
            given = f"{self.method} together={self.together}"
            raise SettingError(f"scale=unit is an option of the methods {' and '.join(BY_WEIGHTS)}, got {given}")

    @property
    def needs_data(self) -> bool:
        """Whether a network has to be run."""
        return self.method in BY_DATA or self.together == "simplex"

    @property
    def streams(self) -> bool:
        """Whether tensors may be read one at a time."""
        return self.method in BY_WEIGHTS and self.together == "reference" and self.scale == "as_is"


def align_checkpoints(
    paths: Sequence[str],
    symmetry: Symmetry,
    manner: Manner,
    folder: Path,
    *,
    network: Network | None = None,
    tied: Mapping[str, str] | None = None,
    objective: Objective | None = None,
    unsafe_pickle: bool = False,
    progress: Progress = silent,
) -> Alignment:
    """Permute every checkpoint but the first and write it, its permutation and where it comes from.

    Args:
        paths: at least two checkpoints.
        symmetry: of their architecture.
        manner: how.
        folder: where to write.
        network: to run them; needed by methods that look at data.
        tied: names that share a tensor with an earlier one, and that one's name; they count once.
        objective: examples and loss, for the same methods.
        unsafe_pickle: as for :func:`isthmus.core.checkpoint.load`.
        progress: told of the matching.

    Raises:
        SettingError: fewer than two checkpoints, or a method lacks its data.
        CheckpointError: a file does not fit the symmetry.
        WeightsError: NaN or infinities.

    Cost: with :attr:`Manner.streams` and safetensors files, memory for a few tensors and their similarities; else for
    all solutions.
    """
    if len(paths) < 2:
        raise SettingError(f"an alignment takes a fixed checkpoint and at least one to permute, got {len(paths)}")
    if manner.needs_data and (network is None or objective is None):
        raise SettingError(f"{manner.method} together={manner.together} looks at a network's answers: give data")
    names = target_names(paths[1:], folder)
    shared = dict(tied or {})
    sources = [opened(path, symmetry, shared, unsafe_pickle=unsafe_pickle) for path in paths]
    solutions = sources if manner.streams else [dict(weights) for weights in sources]
    try:
        found = _matched(_counting_once(symmetry, shared), solutions, manner, network, objective, progress)
    except WeightsError:  # from a sum over all tensors, so look which file it was
        for path, weights in zip(paths, sources, strict=True):
            check_finite(weights, what=path)
        raise
    first = found.permutations[0].inverse()
    matches = iter(found.matches)
    aligned = []
    for place, (path, weights, name) in enumerate(zip(paths[1:], sources[1:], names, strict=True), start=1):
        permutation = Permutation(symmetry, first.after(found.permutations[place]).indices)
        match = next(matches, None)
        target = written(path, weights, permutation, folder / name, _lineage(paths[0], path, manner, unsafe_pickle))
        beside = target.with_name(f"{target.name.removesuffix(target.suffix)}.permutation.json")
        save_permutation(permutation, beside)
        aligned.append(AlignedCheckpoint(path, str(target), str(beside), match, permutation.fixed_share))
    return Alignment(
        fixed=paths[0],
        method=manner.method,
        together=manner.together,
        aligned=tuple(aligned),
        measure=found.measure,
        objective=found.objective,
        identity_objective=found.identity_objective,
        log10_size=symmetry.log10_size,
    )


def checked(
    alignment: Alignment,
    module: nn.Module,
    example: tuple[Any, ...],
    *,
    keywords: Mapping[str, Any] | None = None,
    unsafe_pickle: bool = False,
) -> Alignment:
    """The same with :attr:`AlignedCheckpoint.largest_change`: how much the permuted network's output moved.

    Computed in float32; one checkpoint is loaded after the other.

    Args:
        alignment: whose files are compared.
        module: the network, with memory of its own.
        example: what it is called with.
        keywords: and the keywords.
        unsafe_pickle: as for :func:`isthmus.core.checkpoint.load`.
    """
    network = Network.of(module)

    def output(path: str) -> torch.Tensor:
        loaded = weights_of(path, network.weights, unsafe_pickle=unsafe_pickle)
        weights = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in loaded.items()}
        with torch.no_grad():
            return answers(network(weights, *example, **dict(keywords or {}))).detach()

    aligned = []
    for one in alignment.aligned:
        before, after = output(one.source), output(one.file)
        change = float((before - after).abs().max() / before.abs().max().clamp_min(1e-30))
        aligned.append(dataclasses.replace(one, largest_change=change))
    return dataclasses.replace(alignment, aligned=tuple(aligned))


def _counting_once(symmetry: Symmetry, tied: Mapping[str, str]) -> Symmetry:
    """Tensors that have two names count under one only: the first, or the one that counts in the symmetry already."""
    if not tied:
        return symmetry
    return dataclasses.replace(symmetry, groups=tuple(_group_counting_once(group, tied) for group in symmetry.groups))


def _group_counting_once(group: UnitGroup, tied: Mapping[str, str]) -> UnitGroup:
    counting = {site.tensor for site in group.matched}
    counting |= {name for row in group.siblings if row.role == "match" for name in row.tensors}
    # A discovered symmetry lets one name count, which need not be the first: without this none would.
    again = set()
    for name, first in tied.items():
        if name in counting and first in counting:
            again.add(name)
        elif name in counting:
            counting.add(first)
    return dataclasses.replace(
        group,
        sites=tuple(dataclasses.replace(s, role="carry") if s.tensor in again else s for s in group.sites),
        siblings=tuple(
            dataclasses.replace(row, role="carry") if set(row.tensors) & again else row for row in group.siblings
        ),
    )


def _matched(  # noqa: PLR0917
    symmetry: Symmetry,
    solutions: Sequence[Weights],
    manner: Manner,
    network: Network | None,
    objective: Objective | None,
    progress: Progress,
) -> ManyMatch:
    generator = child(manner.seed, "alignment")
    if manner.together == "universe":
        return CycleConsistent()(symmetry, solutions, generator=generator, progress=progress)
    if manner.together == "simplex":
        assert objective is not None
        return SimplexStraightThrough(objective)(symmetry, solutions, generator=generator, progress=progress)
    inputs = None if objective is None else objective.inputs
    matching = matcher(manner.method, network, inputs, objective=objective)
    if isinstance(matching, WeightMatching):
        matching = dataclasses.replace(matching, scale=manner.scale)
    if manner.together == "mean":
        chosen = matching
        if isinstance(matching, WeightMatching):
            chosen = dataclasses.replace(matching, start="identity", tolerance=0)
        return to_mean(symmetry, solutions, chosen, generator=generator, progress=progress)
    return to_reference(symmetry, solutions, matching, generator=generator, progress=progress)


def _lineage(fixed: str, moving: str, manner: Manner, unsafe_pickle: bool) -> Lineage:
    parents = (
        *parents_of([fixed], role="fixed", unsafe_pickle=unsafe_pickle),
        *parents_of([moving], unsafe_pickle=unsafe_pickle),
    )
    return stamped(Lineage("isthmus align", parents, dataclasses.asdict(manner)))
