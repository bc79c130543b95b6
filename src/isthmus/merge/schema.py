"""The parts of a merge configuration: values that depend on a tensor, models, and slices of layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from isthmus.core.errors import SettingError

Scalar = bool | float


def _one_or_many(value: Any) -> Any:
    """A lone conditional is a list of one."""
    return [value] if isinstance(value, Mapping) else value


class Conditional(BaseModel):
    """A value for the tensors whose name contains ``filter``."""

    model_config = ConfigDict(extra="forbid")
    value: Scalar | list[Scalar]
    filter: str | None = None


Setting = Annotated[Scalar | list[Scalar] | list[Conditional], BeforeValidator(_one_or_many)]
Parameters = dict[str, Setting]


class Model(BaseModel):
    """One solution and its own parameters."""

    model_config = ConfigDict(extra="forbid")
    model: str
    parameters: Parameters = Field(default_factory=dict)


class Source(Model):
    """One solution's part in a slice."""

    layer_range: tuple[int, int]


class Slice(BaseModel):
    """Consecutive layers that are merged with parameters of their own."""

    model_config = ConfigDict(extra="forbid")
    sources: list[Source] = Field(min_length=1)
    base_model: str | None = None
    parameters: Parameters = Field(default_factory=dict)


def evaluated(setting: Any, tensor: str, position: float) -> float | None:
    """A setting at one tensor; None where every filter fails."""
    if not isinstance(setting, list):
        return float(setting)
    if setting and isinstance(setting[0], Conditional):
        for condition in setting:
            if condition.filter in (None, "*") or condition.filter in tensor:
                return evaluated(condition.value, tensor, position)
        return None
    if not setting:
        return None
    scaled = position * (len(setting) - 1)
    low = min(int(scaled), len(setting) - 1)
    high = min(low + 1, len(setting) - 1)
    if isinstance(setting[low], bool):
        return float(setting[low])
    return float(setting[low]) + (scaled - low) * (float(setting[high]) - float(setting[low]))


def check_range(what: str, name: str, setting: Any) -> None:
    """Refuse shares outside [0, 1], wherever in a setting they stand."""
    limits = {"density": (0.0, 1.0), "gamma": (0.0, 1.0), "t": (0.0, 1.0)}
    if name not in limits:
        return
    low, high = limits[name]
    values = setting if isinstance(setting, list) else [setting]
    for value in values:
        if isinstance(value, Conditional):
            check_range(what, name, value.value)
        elif not low <= value <= high:
            raise SettingError(f"{what}: {name} must lie between {low:g} and {high:g}, got {value:g}")
