"""Merges that need all solutions in memory, some also data; the mergers that words in the shell mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.cli import console
from isthmus.merge.parents import parents_of

if TYPE_CHECKING:
    from isthmus.cli.inputs import Case
    from isthmus.cli.merge_request import Request
    from isthmus.core.weights import Weights
    from isthmus.merge.findings import Findings

# What streams is listed in isthmus.merge.configuration.METHODS; these need all solutions in memory, some also data.
IN_MEMORY = (
    "uniform_soup", "greedy_soup", "magnitude_max", "fisher", "regmean", "knots", "adamerging", "orthogonal_projection",
    "protect",
)  # fmt: skip
NEED_DATA = ("greedy_soup", "fisher", "regmean", "adamerging")


def in_memory(request: Request) -> dict[str, Any]:
    """Load, examine, align if asked, merge, and write."""
    from isthmus.core.errors import SettingError
    from isthmus.core.history import Lineage, save_with_lineage
    from isthmus.merge.aligned import Aligned

    target = target_of(request.output)
    check_room(request)
    case = request.case if request.needs_data else None
    solutions, base = _loaded(request, case)
    merger = _merger(request.method, {**request.settings, "seed": request.seed}, case)
    aligner = aligner_of(request.align, case, request.seed) if case is not None and request.align != "none" else None
    findings = _examined(solutions, base, aligner)
    if request.method in _TASKS and base is None:
        raise SettingError(f"{request.method} merges changes of a common start: give --base")
    if request.method in _TASKS or (request.method == "protect" and base is not None):
        merged = _heard(lambda: merger(solutions, base=base))
    else:
        merged = _heard(lambda: (Aligned(merger, aligner) if aligner else merger)(solutions))
    given = {name: value for name, value in request.settings.items() if value is not None}
    lineage = Lineage(
        "isthmus merge", parents_of(request.paths, request.base, unsafe_pickle=request.unsafe_pickle),
        {"method": request.method, "align": request.align, **given, "seed": request.seed},
        case.data.fingerprint if case else None,
    )  # fmt: skip
    metadata = {"made_by": "isthmus merge", "method": request.method, "models": json.dumps(request.paths)}
    weights = _in_precision(merged, request.settings["dtype"])
    carried(request, target, weights)
    save_with_lineage(weights, target, lineage, metadata=metadata)
    said = {"output": str(target), "method": request.method, "models": request.paths}
    return {"merge": said, "findings": findings}


def check_room(request: Request) -> None:
    """Refuse what cannot fit into this machine, which the system would end without a word.

    Raises:
        SettingError: the models alone are larger than its memory.
    """
    from isthmus.core.errors import SettingError
    from isthmus.core.index import bytes_on_disk
    from isthmus.core.machine import memory
    from isthmus.merge.configuration import METHODS

    needed = sum(bytes_on_disk(Path(path)) for path in (*request.paths, *([request.base] if request.base else [])))
    if (room := memory()) is not None and needed > room:
        raise SettingError(
            f"models that are merged at once must fit into memory, but have {needed / 1e9:.1f} GB, this machine has "
            f"{room / 1e9:.1f} GB; from disk to disk, in any memory, safetensors are merged by {', '.join(METHODS)}"
        )


def _loaded(request: Request, case: Case | None) -> tuple[Sequence[Weights], Weights | None]:
    """What is merged, and the base, all under the same names and in one place."""
    from isthmus.core.checkpoint import load
    from isthmus.core.fitting import fit
    from isthmus.core.weights import to

    def read(path: str) -> dict[str, Any]:
        return load(path, unsafe_pickle=request.unsafe_pickle)

    solutions = case.solutions if case else _alike([read(path) for path in request.paths], request.paths)
    if request.base is None:
        return solutions, None
    place = next(iter(solutions[0].values())).device
    return solutions, to(fit(read(request.base), solutions[0], what=request.base), device=place)


def _examined(solutions: Sequence[Weights], base: Weights | None, aligner: Any) -> Findings | None:
    """What speaks against the merge, told before it is made."""
    from isthmus.merge.finding import Severity
    from isthmus.merge.findings import examine

    findings = examine(solutions, base, aligner=aligner) if len(solutions) > 1 else None
    for finding in findings.findings if findings is not None else ():
        if finding.what == "permuted" and aligner is not None:
            console.note(f"{finding.sentence}; they are aligned first, as you asked")
        elif finding.severity is not Severity.NOTE and finding.what != "batch statistics":
            console.note(str(finding))
    return findings


def _heard(merge: Callable[[], Weights]) -> Weights:
    """The merge, whose warnings about statistics are told as notes."""
    import warnings

    from isthmus.merge.merger import BatchStatisticsWarning

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", BatchStatisticsWarning)
        merged = merge()
    for message in dict.fromkeys(str(warning.message) for warning in heard):
        console.note(f"warning: {message}")
    return merged


def _alike(solutions: list[dict[str, Any]], paths: list[str]) -> list[dict[str, Any]]:
    """The same solutions under one set of names: a wrapper's prefix (``module.``) that only some have is taken off.

    Raises:
        CheckpointError: they hold different tensors; names two of the files.
    """
    from isthmus.core.errors import CheckpointError, listed
    from isthmus.core.names import without_prefixes

    if all(one.keys() == solutions[0].keys() for one in solutions):
        return solutions
    bare = [dict(zip(without_prefixes(tuple(one))[-1], one.values(), strict=True)) for one in solutions]
    for path, one in zip(paths, bare, strict=True):
        if differing := one.keys() ^ bare[0].keys():
            raise CheckpointError(
                f"merged models must hold the same tensors, but {paths[0]} and {path} differ in "
                f"{listed(sorted(differing), 3)}; merge only networks of one architecture"
            )
    return bare


def target_of(output: Path) -> Path:
    """The file that a merge in memory is written to.

    Raises:
        CheckpointError: it exists.
    """
    from isthmus.core.errors import CheckpointError
    from isthmus.core.folders import TORCH_SUFFIXES

    target = output if output.suffix in (".safetensors", *TORCH_SUFFIXES) else output / "model.safetensors"
    if target.exists():
        raise CheckpointError(f"the output must not exist yet, but {target} does; remove it or choose another output")
    return target


def carried(request: Request, target: Path, weights: Weights) -> None:
    """Give an output folder what a loader needs beside the weights (configuration, tokenizer), the base's or a model's.

    The weights come after it, so that a folder that has them is complete.
    """
    from isthmus.core.folders import home_of
    from isthmus.merge.carry import carry
    from isthmus.merge.floats import PRECISIONS

    home = home_of(Path(request.base or request.paths[0]))
    if home is None or target == request.output:
        return
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in weights.values() if tensor.is_floating_point()}
    target.parent.mkdir(parents=True, exist_ok=True)
    carry(home, target.parent, precision=next((p for p in PRECISIONS if {p.name} == kinds), None))


def _in_precision(weights: Any, dtype: str | None) -> Any:
    import torch

    from isthmus.core.weights import to
    from isthmus.merge.floats import precision_of

    return to(weights, dtype=getattr(torch, precision_of(dtype).name)) if dtype else weights


_TASKS = ("task_arithmetic", "ties", "dare_linear", "dare_ties", "breadcrumbs", "magnitude_max", "knots", "adamerging",
          "orthogonal_projection")  # fmt: skip


def _merger(method: str, settings: dict[str, Any], case: Case | None) -> Any:
    """The merger that a word in the shell means."""
    import isthmus.merge as merging
    from isthmus.core.errors import SettingError

    weights = tuple(settings["weight"]) if settings["weight"] else None
    scaled = {"scale": settings["scale"]} if settings["scale"] is not None else {}
    protected = {"protected": settings["density"]} if settings["density"] is not None else {}
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
        "orthogonal_projection": lambda: merging.OrthogonalProjection(**scaled),
        "protect": lambda: merging.ProtectSpecific(weights=weights, **scaled, **protected),
        "knots": lambda: merging.KnOTS(weights=weights, **scaled, **dense),
    }
    if case is not None:
        unlabelled = case.data.train_inputs
        made |= {
            "greedy_soup": lambda: merging.GreedySoup(half_of(case.objective, first=True)),
            "fisher": lambda: merging.Fisher(case.training, weights=weights),
            "regmean": lambda: merging.RegMean(case.training),
            "adamerging": lambda: merging.AdaMerging(case.network, unlabelled, seed=settings["seed"]),
        }
    if method not in made:
        raise SettingError(f"{method} cannot be combined with these options; it merges .safetensors from disk to disk")
    return made[method]()


def half_of(objective: Any, *, first: bool) -> Any:
    """One half of the test examples: a greedy soup is chosen on the first and measured on the second."""
    middle = (len(objective.targets) + 1) // 2
    part = slice(0, middle) if first else slice(middle, None)
    return objective.over(part)


def aligner_of(align: str, case: Case, seed: int) -> Any:
    """(moving, fixed) → moving, permuted to match."""
    from isthmus.core.randomness import child
    from isthmus.studies.matchers import matcher

    matching = matcher(align, case.network, case.data.train_inputs)

    def moved(moving: Any, fixed: Any) -> Any:
        return matching(case.symmetry, moving, fixed, generator=child(seed, "alignment")).permutation.apply(moving)

    return moved
