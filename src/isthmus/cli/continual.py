"""``isthmus continual``: what survives a merge of networks that learned different things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options, subjects

if TYPE_CHECKING:
    from isthmus.core.record import Record
    from isthmus.train import Recipe
    from isthmus.zoo.cues import Cue
    from isthmus.zoo.data import Data
    from isthmus.zoo.streams import Stream


def continual(
    model: Annotated[str, typer.Option(help="A network of the zoo, or your own as file.py:function.")] = "mlp-64x2",
    cues: Annotated[str, typer.Option(help="Two of colour, noise, position, frequency, texture.")] = "colour,noise",
    cue: Annotated[
        str | None, typer.Option(help="Settings of both cues: strength=2,correlation=1,swapped=.4,absent=.3,size=…")
    ] = None,
    replicas: Annotated[int, typer.Option(help="Seeds; six are the fewest that a sign test can tell.")] = 6,
    train: options.Recipe = None,
    task: Annotated[str | None, typer.Option(help="Fields that differ when a task is learned.")] = None,
    margin: Annotated[float, typer.Option(help="By how much a learned cue must beat the base network.")] = 0.2,
    controls: Annotated[bool, typer.Option(help="Also train jointly and with replay.")] = True,
    predict: Annotated[bool, typer.Option(help="Also score before merging what will be lost.")] = True,
    stream: Annotated[
        str | None,
        typer.Option(
            help="Many tasks instead: split, domain, permuted, rotated or cues; or file.py:function, which gives a "
            "stream or a benchmark of Avalanche."
        ),
    ] = None,
    tasks: Annotated[int, typer.Option(help="With --stream: how many.")] = 3,
    mergers: Annotated[
        str,
        typer.Option(
            help="With --stream: some of last, mean, ema, fisher, task_arithmetic, ties, dare, magnitude_max, "
            "orthogonal_projection."
        ),
    ] = "last,mean,ema,ties,magnitude_max",
    start: Annotated[
        str, typer.Option(help="With --stream: each task starts from the base, the previous end or the merged network.")
    ] = "previous",
    heads: Annotated[
        str | None, typer.Option(help="With --stream: one head, or separate ones; disjoint labels need a choice.")
    ] = None,
    save: Annotated[
        str | None, typer.Option(help="Also save the networks and merges into this folder, with their histories.")
    ] = None,
    data: options.RecipeData = None,
    data_dir: options.DataDir = None,
    examples: options.Examples = None,
    points: options.Points = 11,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    report: options.Report = None,
    output: options.Output = None,
    json: options.Json = False,
) -> None:
    """What survives a merge of networks that learned different cues, side by side or one after the other?"""
    with console.progress("continual") as told:
        from isthmus.studies.continual.archive import Archive

        where = inputs.found_device(device)
        name = subjects.data_name(data, console.settings(train, what="train"))
        found = inputs.found_data(name, data_dir, examples=examples)
        kinds, laid = console.names(cues), {"swapped": 0.4, "absent": 0.3, **console.settings(cue, what="cue")}
        shared = {"archive": Archive(save) if save else None, "device": where, "progress": told}
        result: Record
        if stream is not None:
            from isthmus.studies.continual.stream import merges

            course = _course(stream, found, tasks, kinds, laid, seed)
            base, later = _recipes(model, course.tasks[0], stream if ":" in stream else name, train, task)
            result = merges(
                course, base, task=later,
                mergers=console.names(mergers), start=start,  # pyright: ignore[reportArgumentType]
                heads=heads, replicas=replicas, joint=controls, points=points,  # pyright: ignore[reportArgumentType]
                **shared,
            )  # fmt: skip
        else:
            from isthmus.studies.continual.continual import Curriculum, continual
            from isthmus.zoo.cues import in_colour

            base, later = _recipes(model, in_colour(found) if "colour" in kinds else found, name, train, task)
            curriculum = Curriculum(
                base, cues=_two_cues(kinds, laid), task=later, replicas=replicas, points=points, margin=margin,
                controls=controls, predict=predict, seed=seed,
            )  # fmt: skip
            result = continual(curriculum, found, **shared)
    show = _show if stream is None else _show_merges
    console.deliver(result.to_dict(), output=output, report=report, json=json, show=show)


def _course(spec: str, found: Data, tasks: int, kinds: list[str], settings: dict[str, Any], seed: int) -> Stream:
    """The stream of tasks; of cues, those that were asked for come first, then the others in their order."""
    from isthmus.zoo import streams
    from isthmus.zoo.cues import KINDS, in_colour

    if spec != "cues":
        return streams.stream(spec, found, tasks, seed=seed)
    cues = [_cue(kind, settings) for kind in dict.fromkeys((*kinds, *KINDS))]
    return streams.stream(spec, in_colour(found), tasks, cues=cues, seed=seed)


def _two_cues(kinds: list[str], settings: dict[str, Any]) -> tuple[Cue, Cue]:
    from isthmus.core.errors import SettingError

    if len(kinds) != 2:
        raise SettingError(f"cues must be two kinds separated by a comma, got {', '.join(kinds) or 'none'}")
    return _cue(kinds[0], settings), _cue(kinds[1], settings)


def _cue(kind: str, settings: dict[str, Any]) -> Cue:
    import dataclasses

    from isthmus.core.errors import SettingError, listed
    from isthmus.zoo.cues import Cue

    known = [field.name for field in dataclasses.fields(Cue) if field.name != "kind"]
    if unknown := [setting for setting in settings if setting not in known]:
        raise SettingError(f"a cue has no setting {unknown[0]}; it has {listed(known, 10)}")
    if wrong := [s for s, value in settings.items() if isinstance(value, bool) or not isinstance(value, int | float)]:
        raise SettingError(f"a cue's {wrong[0]} must be a number, got {settings[wrong[0]]!r}")
    return Cue(kind, **settings)


def _recipes(model: str, shown: Data, data: str, train: str | None, task: str | None) -> tuple[Recipe, dict[str, Any]]:
    """The base's recipe, and what differs for a task; gentle enough that a merge is worth looking at."""
    shallow = model.startswith("mlp")
    fields: dict[str, Any] = {
        "network": model,
        "data": data,
        "batch_size": 64 if shallow else 128,
        "rate": 0.05 if shallow else 0.1,
        "epochs": 15,
        **({} if shallow else {"schedule": "cosine", "warmup": 50}),
    }
    later = {"rate": 0.01 if shallow else 0.02, "epochs": 20 if shallow else 10}
    return (
        subjects.recipe_for(shown, {**fields, **console.settings(train, what="train")}),
        {**later, **console.settings(task, what="task")},
    )


def _show(values: dict[str, Any]) -> None:
    from isthmus.report.continual import contrast_rows, forecast_rows, retention_rows
    from isthmus.report.section import section
    from isthmus.report.words import words_for

    words = words_for("en")
    for line in values["notes"]:
        console.note(line)
    console.table(*retention_rows(values, words), title=words("continual.retention"))
    console.table(*contrast_rows(values, words), title=words("continual.contrasts"))
    if values["forecast"]:
        console.table(*forecast_rows(values, words), title=words("continual.forecast"))
    console.say(section(values).headline)


def _show_merges(values: dict[str, Any]) -> None:
    from isthmus.report.continual import barrier_rows, merges_rows
    from isthmus.report.section import section
    from isthmus.report.words import words_for

    words = words_for("en")
    console.table(*merges_rows(values, words), title=words("merges.table"))
    console.table(*barrier_rows(values, words), title=words("merges.barriers"))
    console.say(section(values).headline)
