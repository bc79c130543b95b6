"""The measurements of a check: each model, each pair by every way, and what every way forward costs here."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import time
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

import isthmus.discover as discovery
from isthmus.connect.treatment import Policy
from isthmus.core.canonical import unit_scale
from isthmus.core.errors import IsthmusError
from isthmus.core.losses import IGNORED
from isthmus.core.objective import Objective
from isthmus.core.progress import Progress, within
from isthmus.core.randomness import child
from isthmus.core.symmetry import Symmetry
from isthmus.core.weights import Weights
from isthmus.curvature import eigenpairs, hessian, random_sharpness, trace
from isthmus.noise import effective_redundancy
from isthmus.studies.check.capabilities import Retention, by_class, capability, foresee, rank_correlation
from isthmus.studies.check.checklist import Origin
from isthmus.studies.check.doubt import Doubt, doubt
from isthmus.studies.check.intervals import least_examples, mean
from isthmus.studies.check.verdict import Effort, Model, Pair, Thresholds, Verdict, Way, judged
from isthmus.studies.check.views import Crossing, View, accuracy, cross, preference, view
from isthmus.studies.matchers import matcher

# Examples on a path, whatever the time allows: at least the first, at most the second, and between them as many as can
# establish anything (189 at 2 %).
_PATH_FLOOR, _PATH_CEILING = 128, 500


@dataclasses.dataclass(eq=False)
class Bench:
    """One architecture, its models and the data they are judged on; what was measured is kept for the next question."""

    module: nn.Module
    objective: Objective
    training: Objective
    solutions: tuple[Weights, ...]
    names: tuple[str, ...]
    classes: int
    suites: dict[str, tuple[Tensor, Tensor]]
    thresholds: Thresholds
    effort: Effort
    seed: int
    views: list[View] = dataclasses.field(default_factory=list)
    obstacles: tuple[str, ...] = ()
    _ensembles: list[float] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def symmetry(self) -> Symmetry | None:
        """Of the module; ``None`` where none can be found, and ``obstacles`` says why."""
        try:
            found = discovery.discover(self.module, self.objective.parts[0][:2])
        except (IsthmusError, RuntimeError) as problem:
            self.obstacles = (" ".join(str(problem).split())[:300],)
            return None
        self.obstacles = tuple(f"{obstacle.operation}: {obstacle.reason}" for obstacle in found.obstacles)
        return found

    @functools.cached_property
    def scales(self) -> Symmetry | None:
        """The free scales of units, which no measure of flatness may see; ``None`` where none can be found."""
        try:
            return discovery.discover(self.module, self.objective.parts[0][:2], kinds=("scale",))
        except (IsthmusError, RuntimeError):
            return None  # why, stands in ``obstacles``

    @property
    def log10_copies(self) -> float | None:
        """Of the architecture's equal copies."""
        return None if self.symmetry is None else self.symmetry.log10_size

    @functools.cached_property
    def statistics(self) -> Tensor:
        """Training inputs for running statistics, repair and activations."""
        return self.training.parts[0][: self.effort.statistics_examples]

    def models(self, origins: Sequence[Origin], progress: Progress) -> tuple[Model, ...]:
        """Judge every model by itself."""
        found = []
        for place, (name, weights) in enumerate(zip(self.names, self.solutions, strict=True)):
            progress(0.3 * place / len(self.names), 1, name)
            self.views.append(view(self.objective, weights, keep=True))
            found.append(self._model(place, name, weights, origins[place]))
        self._fit_the_time()
        return tuple(found)

    def _model(self, place: int, name: str, weights: Weights, origin: Origin) -> Model:
        seen, level, flat = self.views[place], self.thresholds.level, self.training.limited(self.effort.flat_examples)
        start = unit_scale(self.scales, weights) if self.effort.curvature and self.scales is not None else weights
        sharpness = random_sharpness(
            flat, start, generator=child(self.seed, "directions"), directions=max(2, self.effort.directions)
        )
        eigenvalue = spread = None
        if self.effort.curvature:
            operator = hessian(flat, start)
            eigenvalue = float(eigenpairs(operator, 1).values[0])
            spread = trace(operator, generator=child(self.seed, "trace"), products=12).interval
        identity = None
        if self.effort.identities and self.symmetry is not None:
            identity = effective_redundancy(self.symmetry, weights)
        capabilities = {key: 1.0 - float(seen.wrong[part].mean()) for key, part in self._classes.items()}
        for key, objective in self._suites.items():
            capabilities[key] = 1.0 - float(view(objective, weights).wrong.mean())
        return Model(
            name, accuracy(seen, level=level), mean(seen.loss, level=level), seen.calibration, capabilities,
            seen.seconds, sharpness, eigenvalue, spread, identity, origin,
        )  # fmt: skip

    @functools.cached_property
    def _classes(self) -> dict[str, Tensor]:
        return by_class(self.views[0].targets, self.classes)

    @functools.cached_property
    def _suites(self) -> dict[str, Objective]:
        return {
            name: dataclasses.replace(self.objective, inputs=inputs, targets=targets)
            for name, (inputs, targets) in self.suites.items()
        }

    def _fit_the_time(self) -> None:
        """Use as many examples on the paths as the time allows, by the speed that the models' own passes had."""
        effort, n = self.effort, len(self.solutions)
        everything = len(self.objective.targets)
        wanted = min(effort.path_examples or everything, everything)
        if effort.seconds is not None:
            a_pass = sum(seen.seconds for seen in self.views) / n / everything
            points = n * (n - 1) / 2 * 4 * (effort.points - 2)
            affordable = effort.seconds / (a_pass * points) - min(effort.statistics_examples, len(self.statistics))
            rule = self.thresholds
            telling = least_examples(rule.barrier, level=rule.level)
            floor = min(max(_PATH_FLOOR, telling), _PATH_CEILING)
            wanted = max(min(floor, everything), min(wanted, int(affordable)))
        self.effort = dataclasses.replace(effort, path_examples=wanted)

    def doubt(self, *, unseen: bool) -> Doubt:
        """How far the labels and the loss can be trusted; after :meth:`models`."""
        examples = min(self.effort.noise_examples, len(self.training.targets))
        models = self.solutions if examples > 1 else ()
        return doubt(
            self.views, self.training.limited(examples), models, names=self.names[: len(models)], unseen=unseen
        )

    def pairs(self, progress: Progress) -> tuple[Pair, ...]:
        """Judge every pair."""
        places = list(itertools.combinations(range(len(self.solutions)), 2))
        found = []
        for done, pair in enumerate(places):
            each = 0.7 / len(places)
            found.append(self._pair(pair, within(progress, 0.3 + each * done, 1, share=each)))
        return tuple(found)

    def _pair(self, pair: tuple[int, int], told: Progress) -> Pair:
        first, second = pair
        start, end = self.solutions[first], self.solutions[second]
        crossings: dict[str, Crossing] = {}
        ends: dict[str, tuple[Weights, View, Weights]] = {}
        ways = ["naive", *(("weights", "activations") if self.symmetry and self.symmetry.permutable else ())]
        for place, way in enumerate(ways):
            told(place, 4, f"{self.names[first]} – {self.names[second]} {way}")
            met, seconds = (end, 0.0) if way == "naive" else self._matched(pair, way)
            crossings[way], middle, average = self._cross(pair, way, (start, met), before=seconds)
            ends[way] = met, middle, average
        aligned = min(ways[1:] or ways, key=lambda way: crossings[way].error_barrier.estimate)
        told(3, 4, f"{self.names[first]} – {self.names[second]} repair")
        before = crossings[aligned].seconds if aligned != "naive" else 0.0
        crossings["repair"], middle, average = self._cross(
            pair, "repair", (start, ends[aligned][0]), policy="repair", before=before
        )
        ends["repair"] = ends[aligned][0], middle, average
        verdict, best, established = judged(crossings, self.thresholds)
        return self._judged(pair, crossings, verdict, best, established=established, ends=ends[best])

    def _judged(
        self,
        pair: tuple[int, int],
        crossings: Mapping[str, Crossing],
        verdict: Verdict,
        best: str,
        *,
        established: bool,
        ends: tuple[Weights, View, Weights],
    ) -> Pair:
        one, other = (self.views[place] for place in pair)
        rights = [1.0 - float(seen.wrong.mean()) for seen in (one, other)]
        wrongs = (1 - rights[0]) * (1 - rights[1])
        assert one.probabilities is not None
        assert other.probabilities is not None
        together = (one.probabilities + other.probabilities).argmax(1)
        self._ensembles.append(float((together == one.targets).double().mean()))
        return Pair(
            *pair,
            verdict=verdict,
            established=established,
            best=best,
            crossings=crossings,
            agreement=float((one.predicted == other.predicted).double().mean()),
            chance_agreement=rights[0] * rights[1] + wrongs / max(1, self.classes - 1),
            preference=preference(one, other, generator=child(self.seed, "preference", *pair)),
            retention=self._retention(pair, best, *ends),
        )

    def _cross(
        self,
        pair: tuple[int, int],
        way: str,
        ends: tuple[Weights, Weights],
        *,
        before: float,
        policy: Policy = "reestimate",
    ) -> tuple[Crossing, View, Weights]:
        examples = self.effort.path_examples or len(self.objective.targets)
        repaired = policy == "repair"
        points = self.effort.repair_points if repaired else self.effort.points
        return cross(
            pair,
            ends,
            tuple(self.views[place].first(self._labels(examples)) for place in pair),  # type: ignore[arg-type]
            self.objective.limited(examples),
            way=way,
            inputs=self.statistics[: self.effort.repair_examples] if repaired else self.statistics,
            positions=[place / (points - 1) for place in range(points)],
            generator=child(self.seed, "examples", *pair),
            policy=policy,
            level=self.thresholds.level,
            before=before,
        )

    def _labels(self, examples: int) -> int:
        """How many labels the first examples have that count: as many, or those of their tokens but the ignored."""
        return int((self.objective.targets[:examples] != IGNORED).sum())

    def _matched(self, pair: tuple[int, int], way: str) -> tuple[Weights, float]:
        began = time.perf_counter()
        assert self.symmetry is not None
        fixed, moving = (self.solutions[place] for place in pair)
        matching = matcher(way, self.objective.network, self.statistics)
        generator = child(self.seed, "alignment", way, *pair)
        met = matching(self.symmetry, moving, fixed, generator=generator).permutation.apply(moving)
        return met, time.perf_counter() - began

    def _retention(self, pair: tuple[int, int], best: str, met: Weights, middle: View, average: Weights) -> Retention:
        """Every class and every named data set, foreseen from the ends and measured on their average."""
        start, examples, floor = self.solutions[pair[0]], len(middle.targets), 1.0 / self.classes
        few = min(self.effort.foresee_examples, self.effort.path_examples or self.effort.foresee_examples)
        one, other = (self.views[place].first(examples) for place in pair)
        foreseen = foresee(self.objective.limited(few), start, met)
        level = self.thresholds.level
        found = [
            capability(name, (one, other, middle), foreseen, floor=floor, chosen=part[:examples], level=level)
            for name, part in self._classes.items()
            if bool(part[:examples].any())
        ]
        for name, objective in self._suites.items():
            views = (view(objective, start), view(objective, met), view(objective, average))
            ahead = foresee(objective.limited(few), start, met)
            found.append(capability(name, views, ahead, floor=floor, level=level))
        ranked = rank_correlation([c.foreseen for c in found], [c.average for c in found])
        return Retention(*pair, best, floor, tuple(found), ranked)

    def ways(
        self, pairs: Sequence[Pair], verdict: Verdict, distil_epochs: int, training_examples: int
    ) -> tuple[Way, ...]:
        """Every way forward with what it costs on this machine."""
        n, each = len(self.solutions), len(pairs)
        allowed = {"as_they_are": ("as_they_are", "permutation", "repair"), "permutation": ("permutation", "repair")}
        # Models are brought to the first one: one alignment less than there are models.
        found = []
        for name, manners in (
            ("as_they_are", ("naive",)),
            ("permutation", ("weights", "activations")),
            ("repair", ("repair",)),
        ):
            rows = [[p.crossings[m] for m in manners if m in p.crossings] for p in pairs]
            if not all(rows):
                continue
            best = [min(row, key=lambda crossing: crossing.error_barrier.estimate) for row in rows]
            seconds = sum(crossing.seconds for crossing in best) / each * (n - 1)
            right = sum(crossing.accuracy for crossing in best) / each
            open_now = name in allowed.get(verdict, ("repair",) if verdict == "repair" else ())
            found.append(Way(name, seconds, 1.0, right, open_now, estimated=False))
        found.append(Way("ensemble", 0.0, float(n), sum(self._ensembles) / each, open=True, estimated=False))
        answer = sum(seen.seconds / len(self.objective.targets) for seen in self.views)
        total = distil_epochs * training_examples * (self._step() + answer)
        found.append(Way("distil", total, 1.0, float("nan"), open=True, estimated=True))
        return tuple(found)

    def _step(self) -> float:
        """Seconds that one example of a training step takes here, forwards and backwards."""
        part = self.training.limited(64)
        began = time.perf_counter()
        part.gradient(self.solutions[0])
        return (time.perf_counter() - began) / len(part.targets)
