"""What is said of a merge that was written: what its models are expected to lose of it, and what it is worth."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.cli import console, inputs
from isthmus.cli.merge_memory import half_of

if TYPE_CHECKING:
    from isthmus.cli.merge_request import Request
    from isthmus.core.history import Lineage
    from isthmus.merge.evaluate import Appraisal
    from isthmus.merge.prediction import Prediction


def _prediction(request: Request) -> Prediction:
    """What each model is expected to lose: from files tensor by tensor, or with the network on unlabelled inputs."""
    from isthmus.core.lazy import lazily
    from isthmus.merge.prediction import predict
    from isthmus.zoo.models import weights_of

    def read(path: str | Path) -> Any:
        return lazily(path, unsafe_pickle=request.unsafe_pickle)

    if not request.measurable:
        solutions = dict(zip(inputs.shortened(request.paths), map(read, request.paths), strict=True))
        return predict(solutions, read(request.output), base=read(str(request.base)))
    case = request.case
    origin, merged = (weights_of(path, case.network.weights) for path in (str(request.base), request.output))
    return predict(
        dict(zip(case.names, case.solutions, strict=True)), merged, base=origin, network=case.network,
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


def measured(request: Request, *, evaluate: bool, predict: bool) -> dict[str, Any]:
    """What was asked for of a merge that lies on disk; the record beside it is completed."""
    from isthmus.core.history import beside, read_lineage, write_beside

    told: dict[str, Any] = {}
    if predict:
        told["prediction"] = _prediction(request)
    if evaluate:
        told["verdict"] = verdict = _appraised(request)
        verdict.save(request.output)
        record = beside(request.output)
        lineage = read_lineage(record.read_text(encoding="utf-8")) if record.is_file() else None
        if lineage is not None:
            write_beside(request.output, _with_verdict(lineage, verdict, request.case.data.name))
    return told


def _appraised(request: Request) -> Appraisal:
    """Ends, merge and ensemble; on examples that a greedy soup was not chosen by."""
    from isthmus.core.weights import to
    from isthmus.merge.evaluate import appraise
    from isthmus.zoo.models import weights_of

    case = request.case
    place = next(iter(case.network.weights.values())).device
    objective = half_of(case.objective, first=False) if request.method == "greedy_soup" else case.objective
    merged = to(weights_of(request.output, case.network.weights), device=place)
    return appraise(merged, dict(zip(case.names, case.solutions, strict=True)), objective)


def _with_verdict(lineage: Lineage, verdict: Appraisal, data: str) -> Lineage:
    """A record with what the merge was measured to do."""
    score = verdict.merged
    known = {data: 1 - score.metrics["error"]} if "error" in score.metrics else {}
    return dataclasses.replace(
        lineage, capabilities={**lineage.capabilities, **known},
        measures={**lineage.measures, "loss": score.loss, "gain over the best model": verdict.gain},
    )  # fmt: skip
