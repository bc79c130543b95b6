"""What the demonstration trains and measures, with defaults that suit two cores."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.core.errors import SettingError
from isthmus.train import Recipe
from isthmus.zoo.networks import is_network


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the demonstration trains and measures.

    Attributes:
        model: a network of the zoo that has a width, or the user's own specification (then of one size only).
        data: name or specification of the data.
        widths: hidden units, or the width multiplier of a ResNet.
        solutions: networks of each width, from different seeds; at least 2, and 4 for intervals.
        family: networks that share one initialisation, at the middle width.
        epochs: passes over the training set.
        examples: at most so many training and test examples.
        points: on each path.
        options: further fields of the recipe.
    """

    model: str
    data: str
    widths: tuple[float | None, ...]
    solutions: int
    family: int
    epochs: int
    examples: int | None
    points: int
    options: Mapping[str, Any]

    @classmethod
    def sensible(cls, model: str, data: str, **changes: Any) -> Settings:
        """Defaults that finish in about a minute on two cores; ``None`` among the changes means the default.

        Raises:
            SettingError: fewer than two solutions, or than three points.
        """
        defaults = _DEFAULTS.get(model, _DEFAULTS["own"])
        if data != "digits":  # more and larger images: fewer of everything else
            defaults = {**defaults, **_LARGER_IMAGES.get(model, {})}
        given = {name: value for name, value in changes.items() if value is not None}
        if given.get("solutions", 2) < 2:
            raise SettingError(f"solutions must be at least 2 to have a pair, got {given['solutions']}")
        if given.get("points", 3) < 3:
            raise SettingError(f"points must be at least 3 to see inside the path, got {given['points']}")
        return cls(model=model, data=data, **{**defaults, **given})

    def recipe(self, width: float | None, shape: Sequence[int], classes: int) -> Recipe:
        """The recipe of a width, with all seeds at zero."""
        settings: dict[str, Any] = {}
        if is_network(self.model):  # also in short forms, such as mlp-64x2
            settings = {"inputs": list(shape), "classes": classes}
            if width is not None:
                settings["width"] = int(width) if float(width).is_integer() else width
        return Recipe(
            network=self.model, settings=settings, data=self.data, epochs=self.epochs, subset=None, **self.options
        )


_STEADY = {"optimiser": "sgd", "rate": 0.1, "momentum": 0.9, "schedule": "cosine", "batch_size": 64, "warmup": 20}
_LARGER_IMAGES: dict[str, dict[str, Any]] = {
    "mlp": dict(solutions=4, epochs=6, examples=4000, points=15),
    "resnet20": dict(widths=(0.25, 0.5), epochs=6, examples=1500, points=5),
    "vit": dict(widths=(16, 32), epochs=8, examples=1500, points=7),
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "mlp": dict(widths=(32, 128, 512), solutions=5, family=4, epochs=20, examples=None, points=25, options=_STEADY),
    "resnet20": dict(
        widths=(0.25, 0.5, 1.0), solutions=2, family=2, epochs=3, examples=1500, points=9, options=_STEADY
    ),
    "vit": dict(
        widths=(16, 32, 64), solutions=2, family=2, epochs=5, examples=1500, points=9,
        options={"optimiser": "adamw", "rate": 1e-3, "schedule": "cosine", "batch_size": 64, "warmup": 20},
    ),
    "own": dict(widths=(None,), solutions=2, family=2, epochs=3, examples=2000, points=9, options=_STEADY),
}  # fmt: skip
