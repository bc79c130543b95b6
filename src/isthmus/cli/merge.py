"""``isthmus merge``: many checkpoints into one; tensor by tensor from disk to disk where the method allows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from isthmus.cli import console, inputs, options
from isthmus.cli.merge_request import Request


def merge(
    checkpoints: options.MaybeCheckpoints = None,
    config: Annotated[str | None, typer.Option("--config", "-c", help="A merge in mergekit's YAML format.")] = None,
    method: Annotated[
        str, typer.Option("--method", "-m", help="linear, slerp, ties, dare_ties, …, greedy_soup, fisher, regmean, …")
    ] = "linear",
    base: Annotated[str | None, typer.Option(help="The checkpoint that the models started from.")] = None,
    weight: Annotated[list[float] | None, typer.Option(help="One for each model, in order.")] = None,
    density: Annotated[
        float | None,
        typer.Option(help="Share of each task vector that is kept; by default ties .2, dare .5, breadcrumbs .85."),
    ] = None,
    t: Annotated[float, typer.Option("--t", help="slerp: position between first (0) and second (1).")] = 0.5,
    scale: Annotated[float | None, typer.Option(help="Factor of the merged task vector (lambda).")] = None,
    dtype: Annotated[str | None, typer.Option(help="Precision of the output; the models' own by default.")] = None,
    align: options.Align = "none",
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="Search for a merge that keeps this share of what the best model can: NAME=DATA:FLOOR, such as "
            "signs=signs.npz:0.98, and :PRIORITY after it; repeatable, the most important first."
        ),
    ] = None,
    expert: Annotated[
        list[str] | None,
        typer.Option(help="With --keep: NAME=MODEL, whose accuracy counts instead of the best model's; repeatable."),
    ] = None,
    tries: Annotated[int, typer.Option(help="With --keep: at most so many merges are made and measured.")] = 200,
    force: Annotated[
        bool, typer.Option("--force", help="With --keep: write the best merge even if it misses a floor.")
    ] = False,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Measure ends, merge and ensemble; needs --model and --data.")
    ] = False,
    predict: Annotated[
        bool,
        typer.Option(
            "--predict",
            help="Say what each model is expected to lose; needs --base. By dilution, the share of its task vector "
            "that the merge leaves out; with --model and --data by disagreement on unlabelled inputs.",
        ),
    ] = False,
    model: Annotated[str | None, typer.Option(help="The network, only for methods or measures that need it.")] = None,
    data: options.MaybeData = None,
    data_dir: options.DataDir = None,
    examples: options.Examples = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    threads: Annotated[int | None, typer.Option(help="Tensors worked on at once; one a processor by default.")] = None,
    unsafe_pickle: options.UnsafePickle = False,
    report: Annotated[
        str | None,
        typer.Option(
            help="With --evaluate, --keep or --predict: also write a page here (.html).", callback=options.page_file
        ),
    ] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="New folder, or a .safetensors file.")] = None,
    json: options.Json = False,
) -> int:
    """Merge checkpoints into one: larger than memory, without running model code, where the method needs no data.

    With --keep the method is searched for. Exit code 1: no merge was found that keeps what must be kept, and nothing
    was written.
    """
    from isthmus.core.errors import SettingError

    if output is None:
        raise SettingError("a merge needs a place to write to: give --output")
    if (config is None) == (not checkpoints):
        raise SettingError("a merge needs models or a configuration: give either paths or --config")
    settings = {"weight": weight, "density": density, "t": t, "scale": scale, "dtype": dtype}
    request = Request(
        inputs.expanded(checkpoints or []), Path(output), method, settings, align=align, model=model, data=data,
        base=base and inputs.here(base), data_dir=data_dir, examples=examples, seed=seed, device=device,
        unsafe_pickle=unsafe_pickle,
    )  # fmt: skip
    _check(request, config=config, keep=bool(keep), evaluate=evaluate, predict=predict, report=report is not None)
    written = True
    if keep:
        from isthmus.cli.merge_keeping import keeping

        told, written = keeping(request, keep=keep, expert=expert or [], tries=tries, force=force)
    elif expert or force:
        raise SettingError("--expert and --force belong to --keep; name what must be kept")
    else:
        request, told = _merged(request, config, threads=threads, predict=predict)
    if written and (evaluate or predict):
        from isthmus.cli.merge_measures import measured

        told |= measured(request, evaluate=evaluate, predict=predict)
    _deliver(told, output, written=written, report=report, json=json)
    return 0 if not keep or told["kept"].met else 1


def _merged(
    request: Request, config: str | None, *, threads: int | None, predict: bool
) -> tuple[Request, dict[str, Any]]:
    """From disk to disk where the method allows it, else in memory; the request names what was merged."""
    from isthmus.cli.merge_files import configuration_of, stream, streams
    from isthmus.core.errors import SettingError
    from isthmus.merge.configuration import Configuration

    if config is None and not streams(request.checked()):
        from isthmus.cli.merge_memory import in_memory

        return request, in_memory(request)
    recipe = configuration_of(request) if config is None else Configuration.read(config)
    request = request.told_by(recipe)
    if predict and request.base is None:
        raise SettingError(_NO_BASE)
    return request, stream(recipe, request.output, seed=request.seed, threads=threads)


def _check(request: Request, *, config: str | None, keep: bool, evaluate: bool, predict: bool, report: bool) -> None:
    """Refuse before the work what could only fail after it."""
    from isthmus.core.errors import SettingError

    if evaluate and not request.measurable:
        raise SettingError("--evaluate measures a network on data: give --model and --data")
    if report and not (evaluate or keep or predict):
        raise SettingError("a report shows what was measured: add --evaluate, --keep or --predict")
    if predict and request.base is None and config is None:
        raise SettingError(_NO_BASE)
    named = [f"--{name}" for name, value in request.chosen().items() if value is not None]
    if keep and config is not None:
        named.insert(0, "--config")
    if keep and named:
        raise SettingError(f"--keep searches among methods and their settings, so {named[0]} must be left out")
    if config is not None and named:
        raise SettingError(f"a configuration says how to merge, so {named[0]} must be left out")


_NO_BASE = "--predict asks what is lost of what the models learned: give the --base they started from"


def _deliver(told: dict[str, Any], output: str, *, written: bool, report: str | None, json: bool) -> None:
    from isthmus.cli.merge_measures import show_prediction

    if report:
        from isthmus.core.provenance import provenance

        found = [told[name].to_dict() for name in ("kept", "verdict", "prediction") if name in told]
        drawn = [{**values, "provenance": values.get("provenance") or provenance()} for values in found]
        console.draw([(output, values) for values in drawn], report)
    if json:
        console.emit_json(told)
        return
    if "kept" in told:
        from isthmus.cli.merge_keeping import show

        show(told["kept"].to_dict())
    console.say(f"wrote {output}" if written else f"wrote nothing; --force writes the best merge to {output}")
    if "prediction" in told:
        show_prediction(told["prediction"].to_dict())
    if "verdict" in told:
        console.say(told["verdict"].card())
