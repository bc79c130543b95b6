"""``isthmus merge``: many checkpoints into one; tensor by tensor from disk to disk where the method allows it."""

from __future__ import annotations

import json as text
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli import console, inputs, options

if TYPE_CHECKING:
    from isthmus.cli.inputs import Case
    from isthmus.merge.configuration import Configuration

# What streams is listed in isthmus.merge.configuration.METHODS; these need all solutions in memory, some also data.
IN_MEMORY = ("uniform_soup", "greedy_soup", "magnitude_max", "fisher", "regmean", "knots", "adamerging")
NEED_DATA = ("greedy_soup", "fisher", "regmean", "adamerging")
TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt")


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
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Measure ends, merge and ensemble; needs --model and --data.")
    ] = False,
    predict: Annotated[
        bool, typer.Option("--predict", help="Say what each model is expected to lose; needs --base, no labels.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="The network, only for methods or measures that need it.")] = None,
    data: options.MaybeData = None,
    data_dir: options.DataDir = None,
    examples: options.Examples = None,
    seed: options.Seed = 0,
    threads: Annotated[int | None, typer.Option(help="Tensors worked on at once; one a processor by default.")] = None,
    unsafe_pickle: options.UnsafePickle = False,
    report: Annotated[str | None, typer.Option(help="With --evaluate: also write a page with figures here.")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="New folder, or a .safetensors file.")] = None,
    json: options.Json = False,
) -> None:
    """Merge checkpoints into one: larger than memory, without running model code, where the method needs no data."""
    from isthmus.core.errors import SettingError

    if output is None:
        raise SettingError("a merge needs a place to write to: give --output")
    if (config is None) == (not models):
        raise SettingError("a merge needs models or a configuration: give either paths or --config")
    _check_wishes(
        evaluate=evaluate, predict=predict, report=report, network=model is not None and data is not None,
        base=base is not None or config is not None,
    )  # fmt: skip
    paths = list(models or [])
    told: dict[str, Any] = {}
    if config is not None or _streams(paths, method, align):
        recipe = _recipe(
            config, paths, method, base, {"weight": weight, "density": density, "t": t, "lambda": scale}, dtype
        )
        base = base or recipe.base_model
        _check_wishes(predict=predict, base=base is not None)
        told = _stream(recipe, Path(output), seed=seed, threads=threads)
        paths = paths or recipe.solutions
        case = _case(paths, model, data, data_dir, examples, unsafe_pickle) if evaluate else None
    else:
        needed = method in NEED_DATA or align != "none"
        if needed and (model is None or data is None):
            raise SettingError(f"{method} with align={align} needs a network and data: give --model and --data")
        case = _case(paths, model, data, data_dir, examples, unsafe_pickle) if needed or evaluate else None
        settings = {"weight": weight, "density": density, "t": t, "scale": scale, "base": base, "seed": seed}
        told = _in_memory(paths, method, Path(output), settings, align=align, case=case, unsafe_pickle=unsafe_pickle)
    if predict:
        measured = _case(paths, model, data, data_dir, examples, unsafe_pickle) if model and data else None
        told["prediction"] = _prediction(paths, base, Path(output), measured)
    if evaluate and case is not None:
        told["verdict"] = _verdict(case, Path(output), held_out=method == "greedy_soup")
    if report:
        from isthmus.report.assemble import page_of_results
        from isthmus.report.page import write_page

        write_page(page_of_results([(output, told["verdict"].to_dict())]), report)
    if json:
        console.emit_json(told)
        return
    console.say(f"wrote {output}")
    if "prediction" in told:
        _show_prediction(told["prediction"].to_dict())
    if "verdict" in told:
        console.say(told["verdict"].card())


def _check_wishes(
    *, evaluate: bool = False, predict: bool = False, report: str | None = None, network: bool = True, base: bool = True
) -> None:
    """Refuse before the work what could only fail after it."""
    from isthmus.core.errors import SettingError

    if evaluate and not network:
        raise SettingError("--evaluate measures a network on data: give --model and --data")
    if report and not evaluate:
        raise SettingError("a report shows what was measured: add --evaluate")
    if predict and not base:
        raise SettingError("--predict asks what is lost of what the models learned: give the --base they started from")


def _streams(paths: list[str], method: str, align: str) -> bool:
    """Whether a merge goes from disk to disk."""
    from isthmus.core.errors import SettingError
    from isthmus.merge.configuration import METHODS

    if align not in ("none", "weights", "activations"):
        raise SettingError(f"align must be none, weights or activations, got {align}")
    if method not in METHODS and method not in IN_MEMORY:
        raise SettingError(f"method must be one of {', '.join([*METHODS, *IN_MEMORY])}, got {method}")
    return method in METHODS and align == "none" and not any(Path(path).suffix in TORCH_FILES for path in paths)


def _recipe(
    config: str | None, paths: list[str], method: str, base: str | None, parameters: dict[str, Any], dtype: str | None
) -> Configuration:
    """The configuration file, or the options said as one."""
    from isthmus.core.errors import SettingError
    from isthmus.merge.configuration import METHODS, Configuration

    if config is not None:
        return Configuration.read(config)
    weights = parameters.pop("weight") or [1.0] * len(paths)
    if len(weights) != len(paths):
        raise SettingError(f"--weight must be given once for each of {len(paths)} models, got {len(weights)}")
    own, common, _ = METHODS[method]
    if method == "slerp":
        if len(paths) + (base is not None) != 2:
            raise SettingError(f"slerp merges exactly two models, got {len(paths) + (base is not None)}")
        base, paths = base or paths[0], paths if base else paths[1:]
    listed = [
        {"model": path, "parameters": {"weight": share} if "weight" in own else {}}
        for path, share in zip(paths, weights, strict=False)
    ]
    shared = {name: value for name, value in parameters.items() if value is not None and name in own | common}
    content = {"merge_method": method, "models": listed, "parameters": shared, "out_dtype": dtype}
    return Configuration.of({**content, "base_model": base}, what="the options")


def _stream(recipe: Configuration, output: Path, *, seed: int, threads: int | None) -> dict[str, Any]:
    """From disk to disk, after a look at what is merged."""
    from isthmus.core.errors import CheckpointError
    from isthmus.merge.findings import Severity, examine
    from isthmus.merge.stream import merge_files

    sources = recipe.solutions if len(recipe.solutions) > 1 else [str(recipe.base_model), *recipe.solutions]
    origin = recipe.base_model if recipe.needs_base and len(recipe.solutions) > 1 else None
    try:
        findings = examine(sources, origin)
    except CheckpointError:
        findings = None  # the merge itself says in full what is wrong with the files
    for finding in findings.findings if findings is not None else ():
        if finding.severity is not Severity.NOTE:
            console.note(str(finding))
    with console.progress("merge") as told:
        merged = merge_files(recipe, output, seed=seed, threads=threads, progress=told)
    return {"merge": merged, "findings": findings}


def _case(
    paths: list[str], model: str | None, data: str | None, data_dir: str | None, examples: int | None, unsafe: bool
) -> Case:
    return inputs.case(
        paths,
        model=str(model),
        data=str(data),
        data_dir=data_dir,
        examples=examples,
        device="cpu",
        unsafe_pickle=unsafe,
    )


def _in_memory(
    paths: list[str],
    method: str,
    output: Path,
    settings: dict[str, Any],
    *,
    align: str,
    case: Case | None,
    unsafe_pickle: bool,
) -> dict[str, Any]:
    """Load, examine, align if asked, merge and write."""
    import warnings

    from isthmus.core.checkpoint import fit, load, save
    from isthmus.core.errors import CheckpointError, SettingError
    from isthmus.merge.aligned import Aligned
    from isthmus.merge.findings import Severity, examine
    from isthmus.merge.merger import BatchStatisticsWarning

    target = output if output.suffix in (".safetensors", *TORCH_FILES) else output / "model.safetensors"
    if target.exists():
        raise CheckpointError(f"the output must not exist yet, but {target} does; remove it or choose another output")
    solutions: Any = case.solutions if case else [load(path, unsafe_pickle=unsafe_pickle) for path in paths]
    base = None
    if settings["base"]:
        base = fit(load(settings["base"], unsafe_pickle=unsafe_pickle), solutions[0], what=str(settings["base"]))
    merger = _merger(method, settings, case)
    if base is not None and align != "none":
        raise SettingError(
            "an aligned model no longer has the base that it started from; give either --base or --align"
        )
    aligner = _aligner(align, case, settings["seed"]) if align != "none" and case is not None else None
    findings = examine(solutions, base, aligner=aligner) if len(solutions) > 1 else None
    for finding in findings.findings if findings is not None else ():
        if finding.severity is not Severity.NOTE and finding.what != "batch statistics":
            console.note(str(finding))
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", BatchStatisticsWarning)
        if method in _TASKS:
            if base is None:
                raise SettingError(f"{method} merges changes of a common start: give --base")
            merged = merger(solutions, base=base)
        else:
            merged = Aligned(merger, aligner)(solutions) if aligner else merger(solutions)
    for message in dict.fromkeys(str(warning.message) for warning in heard):
        console.note(f"warning: {message}")
    save(merged, target, metadata={"made_by": "isthmus merge", "method": method, "models": text.dumps(paths)})
    return {"merge": {"output": str(target), "method": method, "models": paths}, "findings": findings}


_TASKS = ("task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs", "magnitude_max", "knots", "adamerging")


def _merger(method: str, settings: dict[str, Any], case: Case | None) -> Any:
    """The merger that a word in the shell means."""
    import isthmus.merge as merging
    from isthmus.core.errors import SettingError

    weights = tuple(settings["weight"]) if settings["weight"] else None
    scaled = {"scale": settings["scale"]} if settings["scale"] is not None else {}
    dense = {"density": settings["density"]} if settings["density"] is not None else {}
    made = {
        "linear": lambda: merging.Weighted(weights),
        "slerp": lambda: merging.SLERP(settings["t"]),
        "uniform_soup": merging.UniformSoup,
        "task_arithmetic": lambda: merging.TaskArithmetic(weights=weights, **scaled),
        "ties": lambda: merging.TIES(weights=weights, **scaled, **dense),
        "dare_linear": lambda: merging.DARE(weights=weights, seed=settings["seed"], **scaled, **dense),
        "dare_ties": lambda: merging.DARE(then="ties", weights=weights, seed=settings["seed"], **scaled, **dense),
        "breadcrumbs": lambda: merging.ModelBreadcrumbs(weights=weights, **scaled, **dense),
        "magnitude_max": lambda: merging.MagnitudeMax(**scaled),
        "knots": lambda: merging.KnOTS(weights=weights, **scaled, **dense),
    }
    if case is not None:
        unlabelled = case.data.train_inputs
        made |= {
            "greedy_soup": lambda: merging.GreedySoup(_half(case.objective, first=True)),
            "fisher": lambda: merging.Fisher(_training(case), weights=weights),
            "regmean": lambda: merging.RegMean(_training(case)),
            "adamerging": lambda: merging.AdaMerging(case.network, unlabelled, seed=settings["seed"]),
        }
    if method not in made:
        raise SettingError(f"{method} cannot be combined with these options; it merges .safetensors from disk to disk")
    return made[method]()


def _training(case: Case) -> Any:
    return inputs.objective(case.network, case.data, split="train")


def _half(objective: Any, *, first: bool) -> Any:
    """One half of the test examples: a greedy soup is chosen on the first and measured on the second."""
    import dataclasses

    middle = (len(objective.targets) + 1) // 2
    part = slice(0, middle) if first else slice(middle, None)
    parts = tuple(tensor[part] for tensor in objective.parts)
    chosen = parts if isinstance(objective.inputs, tuple) else parts[0]
    return dataclasses.replace(objective, inputs=chosen, targets=objective.targets[part])


def _aligner(align: str, case: Case, seed: int) -> Any:
    """(moving, fixed) → moving, permuted to match."""
    import isthmus.discover as discovery
    from isthmus.core.randomness import child
    from isthmus.studies.comparison import matcher

    symmetry = discovery.discover(case.module, case.data.train_inputs[:2])
    matching = matcher(align, case.network, case.data.train_inputs)

    def moved(moving: Any, fixed: Any) -> Any:
        return matching(symmetry, moving, fixed, generator=child(seed, "alignment")).permutation.apply(moving)

    return moved


def _prediction(paths: list[str], base: str | None, output: Path, case: Case | None) -> Any:
    """What each model is expected to lose: from files tensor by tensor, or with the network on unlabelled inputs."""
    from isthmus.core.checkpoint import fit, load
    from isthmus.core.lazy import LazyCheckpoint
    from isthmus.merge.prediction import predict

    def read(path: str | Path) -> Any:
        return load(path) if Path(path).suffix in TORCH_FILES else LazyCheckpoint(path)

    names = inputs.shortened(paths)
    if case is None:
        return predict(dict(zip(names, map(read, paths), strict=True)), read(output), base=read(str(base)))
    origin, merged = (fit(load(path), case.network.weights, what=str(path)) for path in (str(base), output))
    return predict(
        dict(zip(names, case.solutions, strict=True)), merged, base=origin, network=case.network,
        inputs=case.data.train_inputs[:256],
    )  # fmt: skip


def _show_prediction(values: dict[str, Any]) -> None:
    shown = list(dict.fromkeys((values["by"], "dilution", "sign_conflict", "distance")))
    rows = [
        [name, *(scores[score] for score in shown)]
        for name, scores in zip(values["names"], values["scores"], strict=True)
    ]
    console.table(["Model", *shown], rows, title=f"Expected to lose most of what it learned, by {values['by']}")


def _verdict(case: Case, output: Path, *, held_out: bool) -> Any:
    """Ends, merge and ensemble; the card goes beside the output."""
    from isthmus.core.checkpoint import fit, load
    from isthmus.merge.evaluate import appraise

    merged = fit(load(output), case.network.weights, what=str(output))
    objective = _half(case.objective, first=False) if held_out else case.objective
    found = appraise(merged, dict(zip(case.names, case.solutions, strict=True)), objective)
    found.save(output)
    return found
