"""Activation matching: the permutation under which two networks' units answer most alike to the same data."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from isthmus.align.ascent import Ascent
from isthmus.align.landscape import Landscape
from isthmus.align.match import Match, settings_of
from isthmus.align.observe import Port, Watch
from isthmus.align.trees import solve, trees_of
from isthmus.align.views import ActivationSimilarity, View, drop_doubles, is_blind, views_of
from isthmus.core.errors import DataError, SettingError, listed
from isthmus.core.network import Network
from isthmus.core.progress import Progress, silent
from isthmus.core.status import Status
from isthmus.core.symmetry import Permutation, Symmetry
from isthmus.core.weights import Weights

Kernel = Literal["correlation", "inner_product"]
Batch = Tensor | tuple[Any, ...] | Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class ActivationMatching:
    """One assignment for each tree of groups, on how the units' activations go together over data.

    Exact for its objective: groups do not depend on each other. Units are watched in the layers whose tensors hold
    them; features of all positions (of an image, of a sequence) count as samples. Attention heads are compared by the
    best arrangement of the channels inside them. Groups that nothing shows are matched by weights instead, with all
    others in place, and named in the result's notes.

    Attributes:
        network: how to run both solutions.
        inputs: all inputs, examples first (a tuple for several inputs), or an iterable of batches: tensors, tuples of
            positional or mappings of keyword arguments. It is passed over once for each call.
        kernel: ``correlation``, or ``inner_product`` of the features.
        centred: whether means are taken off first; without it, a large common mean makes all units alike.
        when: ``after`` the nonlinearity (what readers of the units get), or ``before`` it (what writers put out, after
            their normalisation). A group that can be watched on one side only is watched there.
        batch_size: how many examples go through the networks at once; changes memory and speed only.

    Reference: Li et al., "Convergent learning", arXiv 1511.07543; Ainsworth et al., arXiv 2209.04836, section 3.1.
    """

    network: Network
    inputs: Tensor | tuple[Tensor, ...] | Iterable[Batch]
    kernel: Kernel = "correlation"
    centred: bool = True
    when: Literal["before", "after"] = "after"
    batch_size: int = 250

    def __post_init__(self) -> None:
        if self.kernel not in ("correlation", "inner_product"):
            raise SettingError(f"kernel must be correlation or inner_product, got {self.kernel}")
        if self.when not in ("before", "after"):
            raise SettingError(f"when must be before or after, got {self.when}")
        if self.batch_size < 1:
            raise SettingError(f"batch_size must be at least 1, got {self.batch_size}")

    def __call__(
        self,
        symmetry: Symmetry,
        moving: Weights,
        fixed: Weights,
        *,
        generator: torch.Generator,
        progress: Progress = silent,
    ) -> Match:
        """Match two solutions.

        Args:
            symmetry: of their architecture.
            moving: the solution whose units are permuted.
            fixed: the one that stays.
            generator: used only where a group must be matched by weights.
            progress: called after each batch.

        Raises:
            SymmetryError: the weights are not of this architecture.
            DataError: there are no inputs.
            WeightsError: activations are NaN or infinite.

        Cost: two network calls for each batch, and for each port samples × units² products; units² numbers in float64
        for each port.
        """
        symmetry.check(moving)
        symmetry.check(fixed)
        trees = trees_of(symmetry)
        views = {tree.name: views_of(symmetry, tree, self.network, self.when) for tree in trees}
        self._stream(views, moving, fixed, progress)
        views = {name: [view for view in tree_views if view.moments.samples] for name, tree_views in views.items()}
        seconds: dict[str, float] = {}
        indices: dict[str, Tensor] = {}
        reached = identity = 0.0
        for tree in trees:
            began = time.perf_counter()
            similarity = ActivationSimilarity(symmetry, views[tree.name], self.kernel == "correlation", self.centred)
            found = solve(symmetry, tree, similarity)
            before, after = similarity.total(tree, {}), similarity.total(tree, found)
            # Only groups that share features inside one unit are solved approximately, and could end below.
            indices.update(found if after > before else {})
            reached, identity = reached + max(before, after), identity + before
            seconds[tree.name] = time.perf_counter() - began
        permutation = Permutation(symmetry, indices)
        blind = [g for tree in trees for g in tree.members if is_blind(symmetry, g, views[tree.name])]
        if blind:
            ascent = Ascent.at(Landscape.of(symmetry, moving, fixed), permutation, generator=generator)
            ascent.settle_only([group.name for group in blind])
            permutation = ascent.answer
        notes = (f"nothing shows these groups, they were matched by weights: {listed(g.name for g in blind)}",)
        return Match(
            permutation=permutation,
            objective=reached,
            identity_objective=identity,
            upper_bound=reached,
            measure=f"{'centred ' if self.centred else ''}{self.kernel.replace('_', ' ')} of activations",
            sweeps=1,
            status=Status.CONVERGED,
            unsettled=(),
            history=(identity, reached),
            seconds=seconds,
            method="activation matching",
            settings=settings_of(self),
            notes=notes if blind else (),
        )

    def batches(self) -> Iterator[Batch]:
        """The inputs, ``batch_size`` at a time where they are tensors."""
        if isinstance(self.inputs, Tensor):
            yield from self.inputs.split(self.batch_size)
            return
        parts = [part for part in self.inputs if isinstance(part, Tensor)] if isinstance(self.inputs, tuple) else []
        if parts and isinstance(self.inputs, tuple) and len(parts) == len(self.inputs):
            yield from zip(*(part.split(self.batch_size) for part in parts), strict=True)
        else:
            yield from self.inputs

    @torch.no_grad()
    def _stream(self, views: Mapping[str, list[View]], moving: Weights, fixed: Weights, progress: Progress) -> None:
        """Run both networks over all batches and fill the moments of the views."""
        ports = list(dict.fromkeys(view.port for tree_views in views.values() for view in tree_views))
        watch = Watch(self.network, ports)
        total = -(-len(self.inputs) // self.batch_size) if isinstance(self.inputs, Tensor) else 0
        done = 0
        for batch in self.batches():
            seen = [_run(watch, weights, batch) for weights in (fixed, moving)]
            drop_doubles(views, seen[0])
            for tree_views in views.values():
                tree_views[:] = [view for view in tree_views if view.same_samples(seen[0], seen[1])]
                for view in tree_views:
                    for left, right in zip(seen[0][view.port], seen[1][view.port], strict=True):
                        view.add(left, right)
            done += 1
            progress(done, max(total, done), "activations")
        if not done:
            raise DataError("activation matching needs at least one batch of inputs, got none")


def _run(watch: Watch, weights: Weights, batch: Batch) -> dict[Port, list[Tensor]]:
    dtypes = {tensor.dtype for tensor in weights.values() if tensor.is_floating_point()}
    dtype = dtypes.pop() if len(dtypes) == 1 else None

    def cast(value: Any) -> Any:
        return value.to(dtype) if dtype and isinstance(value, Tensor) and value.is_floating_point() else value

    if isinstance(batch, Mapping):
        return watch(weights, **{name: cast(value) for name, value in batch.items()})
    return watch(weights, *(cast(value) for value in (batch if isinstance(batch, tuple | list) else (batch,))))
