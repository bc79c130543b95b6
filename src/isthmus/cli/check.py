"""``isthmus check``: may these models be swapped, updated or merged? Exit code 0: yes, 1: no, 2: bad input."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options, subjects

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    whole: str | None


def check(
    models: Annotated[
        list[str] | None, typer.Argument(help="Checkpoints of one architecture, or one store; none with --train.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="package.module:function, file.py:function, torchvision:NAME or a zoo name; a store knows."),
    ] = None,
    data: options.MaybeData = None,
    data_dir: options.DataDir = None,
    train: Annotated[
        str | None, typer.Option(help="Make the replicas first: a recipe as name=value,… or a .json file.")
    ] = None,
    solutions: Annotated[int, typer.Option(help="With --train, how many; with a store, at most how many runs.")] = 3,
    vary: Annotated[
        str, typer.Option(help="With --train, which seeds differ: by default one initialisation, other data orders.")
    ] = "order",
    run: Annotated[
        list[str] | None, typer.Option(help="Of a store, only the runs whose keys start so; repeatable.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Of a store, only the runs of this study.")] = None,
    barrier: Annotated[
        float, typer.Option(help="Largest error barrier of a connected pair; 0.02 as in Frankle et al. 2020.")
    ] = 0.02,
    level: Annotated[float, typer.Option(help="Of all intervals.")] = 0.95,
    strict: Annotated[
        bool, typer.Option("--strict", help="The whole interval must lie below --barrier, not just the estimate.")
    ] = False,
    floor: Annotated[
        list[str] | None, typer.Option(help="Accuracy that every model must reach: 0.9, or CAPABILITY=0.9; repeatable.")
    ] = None,
    capability: Annotated[
        list[str] | None, typer.Option(help="A further capability: NAME=DATA, judged on its test split; repeatable.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer points and, on slow machines, fewer examples.")] = False,
    points: Annotated[int | None, typer.Option(help="Points on each path, odd; 11, or 5 with --quick.")] = None,
    distil_epochs: Annotated[int, typer.Option(help="Epochs that the cost of a distillation is reckoned with.")] = 30,
    split: options.Split = "test",
    examples: options.Examples = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    unsafe_pickle: options.UnsafePickle = False,
    junit: Annotated[str | None, typer.Option(help="Also write the answer as JUnit XML here.")] = None,
    report: options.Report = None,
    language: Annotated[str, typer.Option("--lang", help="Of the page and the words: en or ja.")] = "en",
    output: options.Output = None,
    json: options.Json = False,
) -> int:
    """Judge whether models may be swapped, updated or merged, and what each way forward costs."""
    from isthmus.report.words import words_for

    words_for(language)  # an unknown language is found out before the work
    with console.progress("check") as told:
        from isthmus.studies.check.check import check as judge
        from isthmus.studies.check.verdict import Effort, Thresholds

        where = inputs.found_device(device)
        rule = Thresholds(barrier=barrier, level=level, strict=strict, floors=_floors(floor or []))
        effort = Effort.quick() if quick else Effort()
        effort = dataclasses.replace(effort, points=points, repair_points=points) if points else effort
        if train is not None:
            if models:
                raise _wrong("--train makes the models; leave the checkpoints out")
            subject = _trained(train, model, data, data_dir, solutions, vary, where, examples)
        elif models and len(models) == 1 and (Path(models[0]) / "store.json").exists():
            subject = _stored(models[0], run or [], study, data_dir, solutions, where, examples)
        elif run or study:
            raise _wrong("--run and --study choose from a store; give one store instead of checkpoints")
        else:
            subject = _files(models or [], model, data, data_dir, where, examples, split, unsafe_pickle=unsafe_pickle)
        found = judge(
            subject.module,
            subject.solutions,
            subject.data,
            names=subject.names,
            origins=subject.origins,
            capabilities=_capabilities(capability or [], data_dir, where, subject.data),
            thresholds=rule,
            effort=effort,
            split=split,  # type: ignore[arg-type]
            fingerprint=subject.whole,
            distil_epochs=distil_epochs,
            seed=seed,
            progress=told,
        )
        if unknown := [n for n in rule.floors if n != "all" and n not in found.models[0].capabilities]:
            raise _wrong(f"floors must name a capability ({', '.join(found.models[0].capabilities)}), got {unknown[0]}")
        values = found.to_dict()
    if junit:
        from isthmus.core.files import write_text
        from isthmus.report.check import junit as as_junit

        write_text(junit, as_junit(values, words_for(language)))
    console.deliver(
        values, output=output, report=report, json=json, show=lambda v: _show(v, language), language=language
    )
    return 0 if values["compatible"] else 1


def _wrong(line: str) -> Exception:
    from isthmus.core.errors import SettingError

    return SettingError(line)


def _files(
    paths: list[str], model: str | None, data: str | None, data_dir: str | None, where: str, examples: int | None,
    split: str, *, unsafe_pickle: bool,
) -> Subject:  # fmt: skip
    """Checkpoints on disk."""
    from isthmus.studies.check.checklist import origin_of

    paths = inputs.expanded(paths)
    if len(paths) < 2:
        raise _wrong(f"a check takes at least 2 checkpoints, or one store, or --train, got {len(paths)}")
    if model is None or data is None:
        raise _wrong("checkpoints must come with --model and --data, which say what they compute and on what")
    case = inputs.case(
        paths, model=model, data=data, data_dir=data_dir, examples=examples, split=split, device=where,
        unsafe_pickle=unsafe_pickle, least=2,
    )  # fmt: skip
    origins = [origin_of(path) for path in paths]
    # The whole set is read a second time only where there is a record to compare it with.
    whole = inputs.found_data(data, data_dir).fingerprint if examples and any(o.data for o in origins) else None
    return Subject(case.module, case.names, case.solutions, origins, case.data, whole)


def _stored(
    path: str, prefixes: list[str], study: str | None, data_dir: str | None, most: int, where: str, examples: int | None
) -> Subject:
    """The runs of a store that were named, or the most that share one network and one data set."""
    from isthmus.core.weights import to
    from isthmus.studies.check.checklist import Origin
    from isthmus.studies.factors.jobs import recipe_of
    from isthmus.studies.store.store import Store
    from isthmus.zoo.models import build

    store = Store.open(path)
    named = list(dict.fromkeys(store.find(prefix) for prefix in prefixes))
    chosen = _one_kind(store, named or (store.members_of(study) if study else store.keys), whole=bool(named))
    if len(chosen) < 2:
        raise _wrong(f"the store {path} must hold at least 2 runs of one network on one data set, got {len(chosen)}")
    runs = chosen if named else chosen[:most]
    if len(runs) < len(store):
        console.note(f"{len(runs)} of {len(store)} runs are checked: {runs[0].recipe['network']}")
    whole = inputs.found_data(runs[0].recipe["data"], data_dir)
    found = (whole if examples is None else whole.limited(examples)).to(where)
    made = build(recipe_of(runs[0].recipe)).to(where)
    origins = [Origin(run.recipe, run.provenance.get("versions"), run.provenance.get("data"), "store") for run in runs]
    weights = [to(store.weights(run.key), device=where) for run in runs]
    return Subject(made, tuple(run.key[:12] for run in runs), weights, origins, found, whole.fingerprint)


def _one_kind(store: Store, keys: Sequence[str], *, whole: bool) -> list[Run]:
    """The runs that did not diverge, of the network and the data set that most share.

    Args:
        store: that holds them.
        keys: of the runs.
        whole: they must all be of one kind, since they were named one by one.
    """
    groups: dict[str, list[Run]] = {}
    for key in keys:
        if store.status(key) == "diverged":
            if whole:
                raise _wrong(f"runs to check must not have diverged, but {key[:12]} did")
            continue
        run = store.run(key)
        kind = f"{run.recipe['network']} {run.recipe['settings']} {run.recipe['data']}"
        groups.setdefault(kind, []).append(run)
    if whole and len(groups) > 1:
        raise _wrong(f"runs to check must share one network and one data set, got {len(groups)} kinds")
    return max(groups.values(), key=len, default=[])


def _trained(
    fields: str, model: str | None, data: str | None, data_dir: str | None, count: int, vary: str, where: str,
    examples: int | None,
) -> Subject:  # fmt: skip
    """Replicas made for this check."""
    from isthmus.core.provenance import provenance
    from isthmus.studies.check.checklist import Origin
    from isthmus.train import Recipe
    from isthmus.train import train as train_replicas
    from isthmus.zoo.models import build

    named = {name: value for name, value in {"network": model, "data": data}.items() if value}
    given = {**console.settings(fields, what="recipe"), **named}
    base = Recipe.from_dict(given)
    whole = inputs.found_data(base.data, data_dir).to(where)
    base = subjects.recipe_for(whole, {"network": base.network, **given})
    if count < 2:
        raise _wrong(f"solutions must be at least 2, got {count}")
    replicas = train_replicas(
        base.replicates(count, vary=console.names(vary)),
        data=whole, module=build, device=where,
    )  # fmt: skip
    kept = [(place, replica) for place, replica in enumerate(replicas) if not replica.diverged]
    if len(kept) < 2:
        raise _wrong(f"at least 2 replicas must train without diverging, got {len(kept)}; lower the rate")
    made = provenance()
    origins = [Origin(r.recipe.to_dict(), made["versions"], whole.fingerprint, "trained here") for _, r in kept]
    return Subject(
        build(base).to(where),
        tuple(f"replica-{place}" for place, _ in kept),
        [replica.weights for _, replica in kept],
        origins,
        whole if examples is None else whole.limited(examples),
        whole.fingerprint,
    )


def _floors(given: list[str]) -> dict[str, float]:
    floors = {}
    for entry in given:
        name, _, value = entry.rpartition("=")
        try:
            floors[name.strip() or "all"] = float(value)
        except ValueError:
            raise _wrong(f"floor must be an accuracy such as 0.9 or CAPABILITY=0.9, got {entry!r}") from None
    return floors


def _capabilities(given: list[str], data_dir: str | None, where: str, data: Data) -> dict[str, Any]:
    found = {}
    for entry in given:
        name, equals, spec = entry.partition("=")
        if not equals or not name or not spec:
            raise _wrong(f"capability must be NAME=DATA, got {entry!r}")
        suite = inputs.found_data(spec, data_dir).to(where)
        if suite.shape != data.shape or suite.classes > data.classes:
            raise _wrong(f"capability {name} must have inputs of shape {data.shape} and at most {data.classes} classes")
        found[name] = (suite.test_inputs.to(data.test_inputs.dtype), suite.test_targets)
    return found


def _show(values: dict[str, Any], language: str) -> None:
    from isthmus.report.check import (
        change_lines,
        item_rows,
        model_rows,
        pair_rows,
        reason_lines,
        verdict_line,
        way_rows,
    )
    from isthmus.report.words import words_for

    words = words_for(language)
    console.say(verdict_line(values, words))
    for line in [*reason_lines(values, words), *change_lines(values, words)]:
        console.say(f"- {line}")
    for name, rows in (("pairs", pair_rows), ("models", model_rows), ("ways", way_rows), ("items", item_rows)):
        console.table(*rows(values, words), title=words(f"check.{name}"))
