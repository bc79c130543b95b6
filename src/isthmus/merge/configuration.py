"""A merge as a file: mergekit's YAML for the methods that both have, with everything unknown refused and named."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from isthmus.core.errors import SettingError, listed, near
from isthmus.merge.floats import precision_of
from isthmus.merge.kernels import Settings
from isthmus.merge.schema import Conditional, Model, Parameters, Slice, Source, check_range, evaluated

# Outermost number behind one of these names is the number of a block of the network.
_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks?|block_list|stages?)\.(\d+)\.")
_BEFORE_LAYERS = re.compile(r"embed|wte|wpe|patch", re.IGNORECASE)

# method -> (per-solution parameters, shared parameters, normalize by default)
METHODS: dict[str, tuple[frozenset[str], frozenset[str], bool]] = {
    "linear": (frozenset({"weight"}), frozenset({"normalize"}), True),
    "slerp": (frozenset(), frozenset({"t"}), True),
    "task_arithmetic": (frozenset({"weight"}), frozenset({"normalize", "lambda"}), False),
    "ties": (frozenset({"weight", "density"}), frozenset({"normalize", "lambda"}), True),
    "dare_linear": (frozenset({"weight", "density"}), frozenset({"normalize", "lambda", "rescale"}), False),
    "dare_ties": (frozenset({"weight", "density"}), frozenset({"normalize", "lambda", "rescale"}), False),
    "breadcrumbs": (frozenset({"weight", "density", "gamma"}), frozenset({"normalize", "lambda"}), False),
    "breadcrumbs_ties": (frozenset({"weight", "density", "gamma"}), frozenset({"normalize", "lambda"}), False),
}
# Where nothing is said a file means what mergekit means by it: keep everything, and dare_ties sums what agrees. Options
# mean what the classes of `task_vectors.py` do: they trim, and what agrees is averaged, as in the papers.
DENSITIES = {"ties": 0.2, "dare_linear": 0.5, "dare_ties": 0.5, "breadcrumbs": 0.85, "breadcrumbs_ties": 0.85}
_THEIRS_ONLY = {
    "modules": "a model of several modules must be merged one module at a time",
    "tokenizer": "vocabularies are not rearranged; bring the models to one tokenizer first",
    "chat_template": "the chat template of the base is carried over",
}


class Configuration(BaseModel):
    """What to merge and how.

    Example:
        >>> Configuration.of({"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}]}).solutions
        ['a', 'b']
    """

    model_config = ConfigDict(extra="forbid")
    merge_method: str
    models: list[Model] | None = None
    slices: list[Slice] | None = None
    base_model: str | None = None
    parameters: Parameters = Field(default_factory=dict)
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: str | None = None

    @classmethod
    def read(cls, path: str | Path) -> Configuration:
        """Read a YAML file; relative paths in it start at its own folder if they are found there.

        Raises:
            SettingError: not YAML, an unknown key or method, or a value out of range.
        """
        import yaml

        file = Path(path)
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as problem:
            raise SettingError(f"a merge needs a readable configuration, but {file}: {problem}") from problem
        except yaml.YAMLError as problem:
            line = " ".join(str(problem).split())[:200]
            raise SettingError(f"{file} must be YAML, but: {line}") from problem
        if not isinstance(content, Mapping):
            raise SettingError(f"{file} must hold keys such as merge_method and models, got {type(content).__name__}")
        return cls.of(content, what=str(file)).located(file.parent)

    @classmethod
    def of(cls, content: Mapping[str, Any], *, what: str = "the configuration") -> Configuration:
        """Check plain values.

        Raises:
            SettingError: an unknown key or method, or a value of the wrong type or out of range.
        """
        try:
            made = cls.model_validate(content)
        except ValidationError as problem:
            raise SettingError(f"{what}: {_sentence(problem)}") from problem
        made._check(what)
        return made

    def located(self, folder: Path) -> Configuration:
        """The same with paths that exist under ``folder`` written out."""

        def found(name: str | None) -> str | None:
            return str(folder / name) if name and not Path(name).is_absolute() and (folder / name).exists() else name

        copy = self.model_copy(deep=True)
        copy.base_model = found(copy.base_model)
        copy.tokenizer_source = found(copy.tokenizer_source)
        for part in copy._inputs():
            part.model = found(part.model) or part.model
        for cut in copy.slices or []:
            cut.base_model = found(cut.base_model)
        return copy

    @property
    def needs_base(self) -> bool:
        """Whether the method works on differences from a base."""
        return self.merge_method != "linear"

    @property
    def solutions(self) -> list[str]:
        """The models that are merged, each once, without the base where that is only the origin of differences."""
        names = list(dict.fromkeys(part.model for part in self._inputs()))
        return [name for name in names if name != self.base_model] if self.needs_base else names

    def settings(self, tensor: str, *, layers: int, seed: int = 0) -> Settings:
        """The parameters of one tensor, with filters and gradients over layers resolved.

        Args:
            tensor: its name.
            layers: how many layers the network has.
            seed: of random masks.

        Raises:
            SettingError: a parameter is missing, or weights are not finite or sum to zero where they are normalised.
        """
        chosen, position = self._place(tensor, layers)
        shared = [cut.parameters for cut in [chosen] if cut is not None] + [self.parameters]
        own, common, normalize = METHODS[self.merge_method]

        def value(name: str, default: float | None, sources: list[Parameters]) -> float:
            for source in sources:
                if name in source and (found := evaluated(source[name], tensor, position)) is not None:
                    return found
            if default is None:
                raise SettingError(f"{self.merge_method} needs the parameter {name} for {tensor}")
            return default

        def each(name: str, default: float | None) -> tuple[float, ...]:
            if name not in own:
                return (1.0,) * len(self.solutions)
            inputs: list[Model] = list(chosen.sources) if chosen is not None else list(self.models or [])
            by_model = {part.model: part.parameters for part in inputs}
            return tuple(value(name, default, [by_model.get(model, {}), *shared]) for model in self.solutions)

        weights = each("weight", None)
        normalize = bool(value("normalize", float(normalize), shared)) if "normalize" in common else normalize
        if not all(map(math.isfinite, weights)):
            raise SettingError(f"weights must be finite, got {weights} for {tensor}")
        if self.merge_method == "linear" and normalize and not abs(sum(weights)) > 1e-8:
            raise SettingError(f"weights must not sum to zero when they are normalised, got {weights} for {tensor}")
        return Settings(
            method=self.merge_method,
            weights=weights,
            densities=each("density", 1.0),
            gammas=each("gamma", 0.01),
            t=value("t", None, shared) if "t" in common else 0.5,
            scale=value("lambda", 1.0, shared) if "lambda" in common else 1.0,
            normalize=normalize,
            rescale=bool(value("rescale", 1.0, shared)) if "rescale" in common else True,
            seed=seed,
        )

    def _inputs(self) -> list[Model]:
        if self.models is not None:
            return list(self.models)
        return [source for cut in self.slices or [] for source in cut.sources]

    def _place(self, tensor: str, layers: int) -> tuple[Slice | None, float]:
        """The slice that a tensor lies in, and its position among that slice's layers in [0, 1]."""
        number = layer_of(tensor)
        if self.slices is None:
            first, last, chosen = 0, layers, None
        elif number is None:
            chosen = self.slices[0 if _BEFORE_LAYERS.search(tensor) else -1]
            first, last = chosen.sources[0].layer_range
        else:
            inside = [cut for cut in self.slices if number in range(*cut.sources[0].layer_range)]
            if not inside:
                raise SettingError(f"slices must cover every layer, but none holds {tensor}")
            chosen = inside[0]
            first, last = chosen.sources[0].layer_range
        if number is None:
            return chosen, 0.0  # mergekit gives what lies outside the layers the first value of a gradient
        return chosen, (number - first) / (last - first - 1) if last - first > 1 else 1.0

    def _check(self, what: str) -> None:
        if self.merge_method not in METHODS:
            raise SettingError(f"{what}: merge_method must be one of {', '.join(METHODS)}, got {self.merge_method}")
        if (self.models is None) == (self.slices is None):
            raise SettingError(f"{what}: exactly one of models and slices must be given")
        if self.needs_base and self.base_model is None:
            raise SettingError(
                f"{what}: {self.merge_method} needs base_model (--base), the checkpoint that the models started from"
            )
        least = 2 if self.merge_method == "linear" else 1
        if len(self.solutions) < least or (self.merge_method == "slerp" and len(self.solutions) != 1):
            need = "one model beside the base" if self.merge_method == "slerp" else f"at least {least} models"
            raise SettingError(f"{what}: {self.merge_method} needs {need}, got {listed(self.solutions) or 'none'}")
        self._check_slices(what)
        if self.tokenizer_source == "union":
            raise SettingError(f"{what}: tokenizer_source union is not supported: {_THEIRS_ONLY['tokenizer']}")
        own, common, _ = METHODS[self.merge_method]
        for precision in (self.dtype, self.out_dtype):
            if precision is not None:
                precision_of(precision)
        holders: list[Configuration | Slice | Model] = [self, *(self.slices or []), *self._inputs()]
        for holder in holders:
            for name, setting in holder.parameters.items():
                if name == "int8_mask" or (name == "rescale" and setting is False):
                    continue  # saves memory there and changes no result, here or there
                if name not in own | common:
                    raise SettingError(
                        f"{what}: parameters of {self.merge_method}: {_unknown(name, sorted(own | common))}"
                    )
                check_range(what, name, setting)

    def _check_slices(self, what: str) -> None:
        reached = 0
        for cut in self.slices or []:
            ranges = {source.layer_range for source in cut.sources}
            if len(ranges) != 1 or next(iter(ranges))[0] != reached or next(iter(ranges))[1] <= reached:
                raise SettingError(
                    f"{what}: slices must name the same layers of every model, in order and without gaps; reordering "
                    f"layers is not a merge of solutions, got {sorted(ranges)} where layer {reached} comes next"
                )
            if cut.base_model not in (None, self.base_model) or {s.model for s in cut.sources} != {
                source.model
                for source in self.slices[0].sources  # type: ignore[index]
            }:
                raise SettingError(f"{what}: all slices must have the same models and base")
            reached = next(iter(ranges))[1]


def layer_of(tensor: str) -> int | None:
    """The number of the layer that a tensor belongs to, None outside of all."""
    match = _LAYER.search(tensor)
    return int(match.group(1)) if match else None


def _sentence(problem: ValidationError) -> str:
    """The first thing that is wrong, in one sentence."""
    errors = problem.errors()
    # An unknown key explains a missing one better than the other way round.
    first = next((error for error in errors if error["type"] == "extra_forbidden"), errors[0])
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        if name in _THEIRS_ONLY:
            return f"{place} is not supported: {_THEIRS_ONLY[name]}"
        known = {*Configuration.model_fields, *Source.model_fields, *Slice.model_fields, *Conditional.model_fields}
        return _unknown(name, sorted(known)) + (f" (at {place})" if place != name else "")
    if first["type"] == "missing":
        return f"{place} is missing"
    return f"{place} must fit: {first['msg']}, got {str(first['input'])[:60]}"


def _unknown(name: str, known: list[str]) -> str:
    hint = near(name, known) or f"; known are {', '.join(known) or 'none'}"
    return f"{name} is not a known key{hint}"
