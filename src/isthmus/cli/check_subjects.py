"""Which models a check looks at: files, runs of a store, or replicas made for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isthmus.cli import console, inputs, subjects

if TYPE_CHECKING:
    import torch

    from isthmus.core.weights import Weights
    from isthmus.studies.check.checklist import Origin
    from isthmus.studies.store.kept import Run
    from isthmus.studies.store.store import Store
    from isthmus.zoo.data import Data


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """Models to check, wherever they came from, with the data they are judged on."""

    module: torch.nn.Module
    names: tuple[str, ...]
    solutions: Sequence[Weights]
    origins: list[Origin]
    data: Data
    fingerprint: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Where the models of a check come from, in the words of the shell.

    Attributes:
        paths: of checkpoints, or of one store; none with ``train``.
        model: the network; a store knows its own.
        data: likewise.
        data_dir: where the data's files are.
        train: fields of a recipe, to make replicas instead.
        solutions: how many to make, or to take of a store at most.
        vary: which seeds of the replicas differ.
        runs: of a store, only those whose keys start so.
        study: of a store, only those of this study.
        split: that is judged on.
        examples: of each split at most.
        device: where.
        unsafe_pickle: run pickles in full.
    """

    paths: list[str]
    model: str | None = None
    data: str | None = None
    data_dir: str | None = None
    train: str | None = None
    solutions: int = 3
    vary: str = "order"
    runs: list[str] = dataclasses.field(default_factory=list)
    study: str | None = None
    split: str = "test"
    examples: int | None = None
    device: str = "cpu"
    unsafe_pickle: bool = False

    def subject(self) -> Subject:
        """The models.

        Raises:
            IsthmusError: the first thing that is wrong.
        """
        from isthmus.core.errors import SettingError

        if self.train is not None:
            if self.paths:
                raise SettingError("--train makes the models; leave the checkpoints out")
            return self._trained(self.train)
        if len(self.paths) == 1 and (Path(self.paths[0]) / "store.json").exists():
            return self._stored(self.paths[0])
        if self.runs or self.study:
            raise SettingError("--run and --study choose from a store; give one store instead of checkpoints")
        return self._files()

    def _files(self) -> Subject:
        """Checkpoints on disk."""
        from isthmus.core.errors import SettingError
        from isthmus.studies.check.checklist import origin_of

        paths = inputs.expanded(self.paths)
        if len(paths) < 2:
            raise SettingError(f"a check takes at least 2 checkpoints, or one store, or --train, got {len(paths)}")
        if self.model is None or self.data is None:
            raise SettingError("checkpoints must come with --model and --data, which say what they compute and on what")
        case = inputs.case(
            paths, model=self.model, data=self.data, data_dir=self.data_dir, examples=self.examples, split=self.split,
            device=self.device, unsafe_pickle=self.unsafe_pickle, least=2,
        )  # fmt: skip
        origins = [origin_of(path) for path in paths]
        # The whole set is read a second time only where there is a record to compare it with.
        recorded = self.examples and any(origin.data for origin in origins)
        whole = inputs.found_data(self.data, self.data_dir).fingerprint if recorded else None
        return Subject(case.module, case.names, case.solutions, origins, case.data, whole)

    def _stored(self, path: str) -> Subject:
        """The runs of a store that were named, or the most that share one network and one data set."""
        from isthmus.core.errors import SettingError
        from isthmus.core.weights import to
        from isthmus.studies.check.checklist import Origin
        from isthmus.studies.factors.jobs import recipe_of
        from isthmus.studies.store.store import Store
        from isthmus.zoo.models import build

        store = Store.open(path)
        named = list(dict.fromkeys(store.find(prefix) for prefix in self.runs))
        among = named or (store.members_of(self.study) if self.study else store.keys)
        chosen = _one_kind(store, among, whole=bool(named))
        if len(chosen) < 2:
            raise SettingError(
                f"the store {path} must hold at least 2 runs of one network on one data set, got {len(chosen)}"
            )
        runs = chosen if named else chosen[: self.solutions]
        if len(runs) < len(store):
            console.note(f"{len(runs)} of {len(store)} runs are checked: {runs[0].recipe['network']}")
        whole = inputs.found_data(runs[0].recipe["data"], self.data_dir)
        made = build(recipe_of(runs[0].recipe)).to(self.device)
        origins = [
            Origin(run.recipe, run.provenance.get("versions"), run.provenance.get("data"), "store") for run in runs
        ]
        weights = [to(store.weights(run.key), device=self.device) for run in runs]
        names = tuple(run.key[:12] for run in runs)
        return Subject(made, names, weights, origins, self._limited(whole).to(self.device), whole.fingerprint)

    def _trained(self, fields: str) -> Subject:
        """Replicas made for this check."""
        from isthmus.core.errors import SettingError
        from isthmus.core.provenance import provenance
        from isthmus.studies.check.checklist import Origin
        from isthmus.train import Recipe, train
        from isthmus.zoo.models import build

        given = dict(console.settings(fields, what="train"))
        given = {**given, "data": subjects.data_name(self.data, given)}
        given["network"] = self.model or given.get("network", Recipe().network)
        whole = inputs.found_data(given["data"], self.data_dir).to(self.device)
        base = subjects.recipe_for(whole, given)
        if self.solutions < 2:
            raise SettingError(f"solutions must be at least 2, got {self.solutions}")
        whole = inputs.taken(whole, base)
        recipes = base.replicates(self.solutions, vary=console.names(self.vary))
        replicas = train(recipes, data=whole, module=build, device=self.device)
        kept = [(place, replica) for place, replica in enumerate(replicas) if not replica.diverged]
        if len(kept) < 2:
            raise SettingError(f"at least 2 replicas must train without diverging, got {len(kept)}; lower the rate")
        made = provenance()
        origins = [Origin(r.recipe.to_dict(), made["versions"], whole.fingerprint, "trained here") for _, r in kept]
        names = tuple(f"replica-{place}" for place, _ in kept)
        weights = [replica.weights for _, replica in kept]
        return Subject(build(base).to(self.device), names, weights, origins, self._limited(whole), whole.fingerprint)

    def _limited(self, data: Data) -> Data:
        return data if self.examples is None else data.limited(self.examples)


def _one_kind(store: Store, keys: Sequence[str], *, whole: bool) -> list[Run]:
    """The runs that did not diverge, of the network and the data set that most share.

    Args:
        store: that holds them.
        keys: of the runs.
        whole: they must all be of one kind, since they were named one by one.
    """
    from isthmus.core.errors import SettingError

    groups: dict[str, list[Run]] = {}
    for key in keys:
        if store.status(key) == "diverged":
            if whole:
                raise SettingError(f"runs to check must not have diverged, but {key[:12]} did")
            continue
        run = store.run(key)
        kind = f"{run.recipe['network']} {run.recipe['settings']} {run.recipe['data']}"
        groups.setdefault(kind, []).append(run)
    if whole and len(groups) > 1:
        raise SettingError(f"runs to check must share one network and one data set, got {len(groups)} kinds")
    return max(groups.values(), key=len, default=[])
