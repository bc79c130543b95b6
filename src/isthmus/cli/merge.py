"""``isthmus merge``: many checkpoints into one; tensor by tensor from disk to disk where the method allows it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options

if TYPE_CHECKING:
    from isthmus.cli.inputs import Case


def merge(
    models: Annotated[list[str] | None, typer.Argument(help="Checkpoints: files or Hugging Face folders.")] = None,
    config: Annotated[str | None, typer.Option("--config", "-c", help="A merge in mergekit's YAML format.")] = None,
    method: Annotated[
        str, typer.Option("--method", "-m", help="linear, slerp, ties, dare_ties, …, greedy_soup, fisher, regmean, …")
    ] = "linear",
    base: Annotated[str | None, typer.Option(help="The checkpoint that the models started from.")] = None,
    weight: Annotated[list[float] | None, typer.Option(help="One for each model, in order.")] = None,
    density: Annotated[float | None, typer.Option(help="Share of each task vector that is kept.")] = None,
    t: Annotated[float, typer.Option("--t", help="slerp: position between first (0) and second (1).")] = 0.5,
    scale: Annotated[float | None, typer.Option(help="Factor of the merged task vector (lambda).")] = None,
    dtype: Annotated[str | None, typer.Option(help="Precision of the output; the models' own by default.")] = None,
    align: Annotated[
        str, typer.Option(help="First permute to match the first model: none, weights or activations.")
    ] = "none",
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
    device: Annotated[str, typer.Option(help="Where networks run: cpu, cuda, or auto.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Tensors worked on at once; one a processor by default.")] = None,
    unsafe_pickle: options.UnsafePickle = False,
    report: Annotated[
        str | None, typer.Option(help="With --evaluate, --keep or --predict: also write a page here.")
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
    if (config is None) == (not models):
        raise SettingError("a merge needs models or a configuration: give either paths or --config")
    _check(
        evaluate=evaluate, predict=predict, report=report, network=model is not None and data is not None,
        base=base is not None or config is not None, keep=bool(keep),
    )  # fmt: skip
    paths, chosen = (
        inputs.expanded(models or []),
        {"weight": weight, "density": density, "scale": scale, "dtype": dtype},
    )
    told: dict[str, Any] = {}

    def case() -> Case:
        return inputs.case(
            paths, model=str(model), data=str(data), data_dir=data_dir, examples=examples, device=device,
            unsafe_pickle=unsafe_pickle,
        )  # fmt: skip

    if keep:
        from isthmus.cli.merge_keeping import keeping

        _alone(config=config, method=None if method == "linear" else method, align=None if align == "none" else align,
               **chosen)  # fmt: skip
        told, written = keeping(
            paths, Path(output), keep=keep, expert=expert or [], tries=tries, force=force, base=base, model=model,
            data=data, data_dir=data_dir, seed=seed, device=device, unsafe_pickle=unsafe_pickle,
        )  # fmt: skip
        evaluate, predict = evaluate and written, predict and written
    else:
        from isthmus.cli.merge_files import recipe_of, stream, streams
        from isthmus.cli.merge_memory import NEED_DATA, in_memory

        if expert or force:
            raise SettingError("--expert and --force belong to --keep; name what must be kept")
        written = True
        if config is not None or streams(paths, method, align):
            recipe = recipe_of(
                config, paths, method, base, {"weight": weight, "density": density, "t": t, "lambda": scale}, dtype
            )
            base = base or recipe.base_model
            _check(predict=predict, base=base is not None)
            told = stream(recipe, Path(output), seed=seed, threads=threads)
            paths = paths or recipe.solutions
        else:
            needed = method in NEED_DATA or align != "none"
            if needed and (model is None or data is None):
                raise SettingError(f"{method} with align={align} needs a network and data: give --model and --data")
            told = in_memory(
                paths, method, Path(output), {**chosen, "t": t, "base": base, "seed": seed}, align=align,
                case=case() if needed or evaluate else None, evaluate=evaluate, unsafe_pickle=unsafe_pickle,
            )  # fmt: skip
            evaluate = False
    if evaluate or predict:
        from isthmus.cli.merge_measures import measured

        told |= measured(
            paths, Path(output), base=base, case=case() if model and data else None, evaluate=evaluate,
            predict=predict, held_out=method == "greedy_soup",
        )  # fmt: skip
    _deliver(told, output, written=written, report=report, json=json)
    return 0 if not keep or told["kept"].met else 1


def _check(
    *, evaluate: bool = False, predict: bool = False, report: str | None = None, network: bool = True,
    base: bool = True, keep: bool = False,
) -> None:  # fmt: skip
    """Refuse before the work what could only fail after it."""
    from isthmus.core.errors import SettingError

    if evaluate and not network:
        raise SettingError("--evaluate measures a network on data: give --model and --data")
    if report and not (evaluate or keep or predict):
        raise SettingError("a report shows what was measured: add --evaluate, --keep or --predict")
    if predict and not base:
        raise SettingError("--predict asks what is lost of what the models learned: give the --base they started from")


def _alone(**given: Any) -> None:
    """A search chooses what these options would say."""
    from isthmus.core.errors import SettingError

    if named := [name for name, value in given.items() if value is not None]:
        raise SettingError(f"--keep searches among methods and their settings, so --{named[0]} must be left out")


def _deliver(told: dict[str, Any], output: str, *, written: bool, report: str | None, json: bool) -> None:
    from isthmus.cli.merge_measures import show_prediction

    if report:
        from isthmus.report.assemble import page_of_results
        from isthmus.report.page import write_page

        drawn = [told[name].to_dict() for name in ("kept", "verdict", "prediction") if name in told]
        write_page(page_of_results([(output, values) for values in drawn]), report)
        console.note(f"{report} has the figures")
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
