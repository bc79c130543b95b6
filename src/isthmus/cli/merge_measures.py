"""What is said of a merge that was written: what its models are expected to lose of it, and what it is worth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.cli import console, inputs
from isthmus.cli.merge_memory import half_of
from isthmus.merge.parents import TORCH_FILES

if TYPE_CHECKING:
    from isthmus.cli.inputs import Case
    from isthmus.core.history import Descent


def _prediction(paths: list[str], base: str | None, output: Path, case: Case | None) -> Any:
    """What each model is expected to lose: from files tensor by tensor, or with the network on unlabelled inputs."""
    from isthmus.core.checkpoint import load
    from isthmus.core.lazy import LazyCheckpoint
    from isthmus.merge.prediction import predict
    from isthmus.zoo.models import weights_of

    def read(path: str | Path) -> Any:
        return load(path) if Path(path).suffix in TORCH_FILES else LazyCheckpoint(path)

    names = inputs.shortened(paths)
    if case is None:
        return predict(dict(zip(names, map(read, paths), strict=True)), read(output), base=read(str(base)))
    origin, merged = (weights_of(path, case.network.weights) for path in (str(base), output))
    return predict(
        dict(zip(names, case.solutions, strict=True)), merged, base=origin, network=case.network,
        inputs=case.data.train_inputs[:256],
    )  # fmt: skip


def show_prediction(values: dict[str, Any]) -> None:
    """The most endangered model first, with the scores that say so."""
    shown = list(dict.fromkeys((values["by"], "dilution", "sign_conflict", "distance")))
    rows = [
        [name, *(scores[score] for score in shown)]
        for name, scores in zip(values["names"], values["scores"], strict=True)
    ]
    console.table(["Model", *shown], rows, title=f"Expected to lose most of what it learned, by {values['by']}")


def measured(
    paths: list[str], output: Path, *, base: str | None, case: Case | None, evaluate: bool, predict: bool,
    held_out: bool,
) -> dict[str, Any]:  # fmt: skip
    """What was asked for of a merge that lies on disk; the record beside it is completed."""
    from isthmus.core.history import beside, read_descent, write_beside
    from isthmus.zoo.models import weights_of

    told: dict[str, Any] = {}
    if predict:
        told["prediction"] = _prediction(paths, base, output, case)
    if evaluate and case is not None:
        merged = weights_of(output, case.network.weights)
        told["verdict"] = appraised(case, merged, held_out=held_out)
        told["verdict"].save(output)
        record = read_descent(beside(output).read_text(encoding="utf-8")) if beside(output).is_file() else None
        if record is not None:
            write_beside(output, with_verdict(record, told["verdict"], case.data.name))
    return told


def appraised(case: Case, merged: Any, *, held_out: bool) -> Any:
    """Ends, merge and ensemble on the case's data."""
    from isthmus.core.weights import to
    from isthmus.merge.evaluate import appraise

    place = next(iter(case.network.weights.values())).device
    objective = half_of(case.objective, first=False) if held_out else case.objective
    return appraise(to(merged, device=place), dict(zip(case.names, case.solutions, strict=True)), objective)


def with_verdict(descent: Descent, verdict: Any, data: str) -> Descent:
    """A record with what the merge was measured to do."""
    score = verdict.merged
    known = {data: 1 - score.metrics["error"]} if "error" in score.metrics else {}
    return dataclasses.replace(
        descent, capabilities={**descent.capabilities, **known},
        measures={**descent.measures, "loss": score.loss, "gain over the best model": verdict.gain},
    )  # fmt: skip
