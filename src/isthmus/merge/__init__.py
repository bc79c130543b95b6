"""Many solutions → one. Names are imported on first use: merging files needs no torch and must not wait for it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isthmus.merge.adaptive import AdaMerging as AdaMerging
    from isthmus.merge.adaptive import Coefficients as Coefficients
    from isthmus.merge.aligned import Aligned as Aligned
    from isthmus.merge.average import SLERP as SLERP
    from isthmus.merge.average import GreedySoup as GreedySoup
    from isthmus.merge.average import Mean as Mean
    from isthmus.merge.average import UniformSoup as UniformSoup
    from isthmus.merge.average import Weighted as Weighted
    from isthmus.merge.configuration import Configuration as Configuration
    from isthmus.merge.evaluate import Appraisal as Appraisal
    from isthmus.merge.evaluate import appraise as appraise
    from isthmus.merge.family import families as families
    from isthmus.merge.family import layerwise as layerwise
    from isthmus.merge.finding import Finding as Finding
    from isthmus.merge.findings import Findings as Findings
    from isthmus.merge.findings import examine as examine
    from isthmus.merge.fisher import Fisher as Fisher
    from isthmus.merge.fisher import diagonal_fisher as diagonal_fisher
    from isthmus.merge.front import Aim as Aim
    from isthmus.merge.front import Family as Family
    from isthmus.merge.front import Front as Front
    from isthmus.merge.front import Trial as Trial
    from isthmus.merge.front import search as search
    from isthmus.merge.merger import BatchStatisticsWarning as BatchStatisticsWarning
    from isthmus.merge.merger import Merger as Merger
    from isthmus.merge.merger import TaskMerger as TaskMerger
    from isthmus.merge.prediction import Prediction as Prediction
    from isthmus.merge.prediction import loss_scores as loss_scores
    from isthmus.merge.prediction import predict as predict
    from isthmus.merge.projection import OrthogonalProjection as OrthogonalProjection
    from isthmus.merge.protection import ProtectSpecific as ProtectSpecific
    from isthmus.merge.regression import RegMean as RegMean
    from isthmus.merge.stream import Streamed as Streamed
    from isthmus.merge.stream import merge_files as merge_files
    from isthmus.merge.subspace import KnOTS as KnOTS
    from isthmus.merge.task_vectors import DARE as DARE
    from isthmus.merge.task_vectors import TIES as TIES
    from isthmus.merge.task_vectors import MagnitudeMax as MagnitudeMax
    from isthmus.merge.task_vectors import ModelBreadcrumbs as ModelBreadcrumbs
    from isthmus.merge.task_vectors import TaskArithmetic as TaskArithmetic
    from isthmus.merge.trajectory import EMA as EMA
    from isthmus.merge.trajectory import LAWA as LAWA
    from isthmus.merge.trajectory import SWA as SWA

_PLACES = {
    "adaptive": ("AdaMerging", "Coefficients"),
    "aligned": ("Aligned",),
    "average": ("SLERP", "GreedySoup", "Mean", "UniformSoup", "Weighted"),
    "configuration": ("Configuration",),
    "evaluate": ("Appraisal", "appraise"),
    "family": ("families", "layerwise"),
    "finding": ("Finding",),
    "findings": ("Findings", "examine"),
    "fisher": ("Fisher", "diagonal_fisher"),
    "front": ("Aim", "Family", "Front", "Trial", "search"),
    "merger": ("BatchStatisticsWarning", "Merger", "TaskMerger"),
    "prediction": ("Prediction", "loss_scores", "predict"),
    "projection": ("OrthogonalProjection",),
    "protection": ("ProtectSpecific",),
    "regression": ("RegMean",),
    "stream": ("Streamed", "merge_files"),
    "subspace": ("KnOTS",),
    "task_vectors": ("DARE", "TIES", "MagnitudeMax", "ModelBreadcrumbs", "TaskArithmetic"),
    "trajectory": ("EMA", "LAWA", "SWA"),
}
_PUBLIC = {name: module for module, names in _PLACES.items() for name in names}

__all__ = list(_PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'isthmus.merge' has no attribute {name!r}")
    return getattr(importlib.import_module(f"isthmus.merge.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
