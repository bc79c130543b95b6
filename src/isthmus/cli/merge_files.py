"""Merges from disk to disk: the options as a configuration, and where the result comes from."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.cli import console
from isthmus.core.history import Lineage, stamped, write_beside
from isthmus.merge.parents import content_of_file, parents_of

if TYPE_CHECKING:
    from isthmus.cli.merge_request import Request
    from isthmus.merge.configuration import Configuration


def streams(request: Request) -> bool:
    """Whether a merge goes from disk to disk."""
    from isthmus.core.folders import checkpoint_at, is_safetensors
    from isthmus.merge.configuration import METHODS

    if request.method not in METHODS or request.align != "none":
        return False
    return all(is_safetensors(checkpoint_at(Path(path))) for path in request.paths)


def configuration_of(request: Request) -> Configuration:
    """The options said as a configuration."""
    from isthmus.core.errors import SettingError
    from isthmus.merge.configuration import DENSITIES, METHODS, Configuration

    paths, base, given = request.paths, request.base, request.settings
    weights = given["weight"] or [1.0] * len(paths)
    if len(weights) != len(paths):
        raise SettingError(f"--weight must be given once for each of {len(paths)} models, got {len(weights)}")
    own, common, _ = METHODS[request.method]
    for option, name in (("weight", "weight"), ("density", "density"), ("scale", "lambda")):
        if given[option] is not None and name not in own | common:
            raise SettingError(f"{request.method} takes no --{option}; leave it out, or choose another --method")
    if request.method == "slerp":
        if len(paths) + (base is not None) != 2:
            raise SettingError(f"slerp merges exactly two models, got {len(paths) + (base is not None)}")
        base, paths = base or paths[0], paths if base else paths[1:]
    listed = [
        {"model": path, "parameters": {"weight": share} if "weight" in own else {}}
        for path, share in zip(paths, weights, strict=False)
    ]
    density = DENSITIES.get(request.method) if given["density"] is None else given["density"]
    parameters = {"density": density, "t": given["t"], "lambda": given["scale"]}
    if request.method == "dare_ties":
        parameters["normalize"] = 1.0
    shared = {name: value for name, value in parameters.items() if value is not None and name in own | common}
    content = {"merge_method": request.method, "models": listed, "parameters": shared, "out_dtype": given["dtype"]}
    return Configuration.of({**content, "base_model": base}, what="the options")


def stream(recipe: Configuration, output: Path, *, seed: int, threads: int | None) -> dict[str, Any]:
    """From disk to disk, after a look at what is merged."""
    from isthmus.core.errors import CheckpointError
    from isthmus.core.files import check_writable
    from isthmus.merge.finding import Severity
    from isthmus.merge.findings import examine
    from isthmus.merge.fitting import check_places
    from isthmus.merge.shards import Shards
    from isthmus.merge.stream import merge_files

    sources = recipe.solutions if len(recipe.solutions) > 1 else [str(recipe.base_model), *recipe.solutions]
    origin = recipe.base_model if recipe.needs_base and len(recipe.solutions) > 1 else None
    check_places([Shards.open(path) for path in sources], output)
    if output.suffix:
        check_writable(output)
    try:
        findings = examine(sources, origin)
    except CheckpointError:
        findings = None  # the merge itself says in full what is wrong with the files
    told_of = findings.findings if findings is not None else ()
    if not any(finding.severity is Severity.ERROR for finding in told_of):  # these the merge refuses, in one line
        for finding in told_of:
            if finding.severity is Severity.WARNING:
                console.note(str(finding))
    lineage = _lineage(recipe, sources, recipe.base_model, seed)
    with console.progress("merge") as told:
        merged = merge_files(
            recipe, output, seed=seed, threads=threads, metadata=lineage.header() if lineage else None, progress=told
        )
    if lineage is not None:
        write_beside(output, dataclasses.replace(stamped(lineage), content=content_of_file(output)))
    return {"merge": merged, "findings": findings}


def _lineage(recipe: Configuration, sources: list[str], base: str | None, seed: int) -> Lineage | None:
    """Where the merge comes from; without the time of day, which would keep an interrupted run from going on."""
    from isthmus.core.errors import CheckpointError

    try:
        parents = parents_of([path for path in sources if path != base], base)
    except CheckpointError:
        return None  # the merge itself says in full what is wrong with the files
    content = recipe.model_dump(exclude_defaults=True, mode="json")
    return Lineage("isthmus merge", parents, {**content, "seed": seed})
