"""``isthmus check``: may these models be swapped, updated or merged? Exit code 0: yes, 1: no, 2: bad input."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options
from isthmus.cli.check_subjects import Source

if TYPE_CHECKING:
    from torch import Tensor

    from isthmus.studies.check.verdict import Thresholds
    from isthmus.zoo.data import Data


def check(
    checkpoints: Annotated[
        list[str] | None, typer.Argument(help="Checkpoints of one architecture, or one store; none with --train.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help=f"{options.MODEL[:-1]}; a store knows."),
    ] = None,
    data: options.MaybeData = None,
    data_dir: options.DataDir = None,
    train: options.Train = None,
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
    junit: Annotated[
        str | None, typer.Option(help="Also write the answer as JUnit XML here.", callback=options.new_file)
    ] = None,
    report: options.Report = None,
    language: options.Language = "en",
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
        subject = Source(
            checkpoints or [], model=model, data=data, data_dir=data_dir, train=train, solutions=solutions, vary=vary,
            runs=run or [], study=study, split=split, examples=examples, device=where, unsafe_pickle=unsafe_pickle,
        ).subject()  # fmt: skip
        _warn(subject.data.test_targets if split == "test" else subject.data.train_targets, rule)
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
            fingerprint=subject.fingerprint,
            distil_epochs=distil_epochs,
            seed=seed,
            progress=told,
        )
        values = found.to_dict()
    if junit:
        _write_junit(junit, values, language)
    console.deliver(
        values, output=output, report=report, json=json, show=lambda v: _show(v, language), language=language
    )
    return 0 if values["compatible"] else 1


def _warn(targets: Tensor, rule: Thresholds) -> None:
    """Say before the work where its answer must stay open."""
    from isthmus.core.losses import IGNORED
    from isthmus.studies.check.intervals import least_examples

    seen, least = int((targets != IGNORED).sum()), least_examples(rule.barrier, level=rule.level)
    if seen < least:
        console.note(
            f"{seen} labels are too few to be sure of any path that is not flat at --barrier {rule.barrier:g}: that "
            f"takes at least {least}"
        )


def _write_junit(path: str, values: dict[str, Any], language: str) -> None:
    from isthmus.core.files import write_text
    from isthmus.report.check import junit
    from isthmus.report.words import words_for

    write_text(path, junit(values, words_for(language)))


def _wrong(line: str) -> Exception:
    from isthmus.core.errors import SettingError

    return SettingError(line)


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
