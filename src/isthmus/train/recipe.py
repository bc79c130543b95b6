"""Recipe: everything that defines one training, and the key that follows from it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.core.errors import SettingError, listed, near
from isthmus.core.record import plain

SCHEMA = 1  # raised whenever the meaning of a field changes, so that old keys never name new results

OPTIMISERS = ("sgd", "adam", "adamw", "sam")
SCHEDULES = ("constant", "cosine")
AUGMENTATIONS = ("crop", "flip", "cutout")
PRECISIONS = ("float32", "float64", "bfloat16", "tensorfloat32")
LOSSES = ("cross_entropy", "squared_error")
SEEDS = ("initialisation", "order", "augmentation", "label_noise", "subset", "mask")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that defines one training; two equal recipes give the same weights, up to rounding.

    The seeds are independent: each drives one source of chance and nothing else. Changing the order's seed leaves the
    initialisation and the augmentation as they were.

    Attributes:
        network: a name of the zoo, or any specification of the user's own model.
        settings: what the network takes, such as ``{"inputs": [1, 8, 8], "width": 64}``.
        data: the name of the data set.
        optimiser: ``sgd`` (with ``momentum``, ``nesterov``), ``adam`` (decay added to the gradient), ``adamw``
            (decoupled) or ``sam`` (sharpness-aware minimisation around SGD, Foret et al. 2021, equation 3).
        rate: the learning rate after the warm-up.
        momentum: of SGD and SAM.
        nesterov: look ahead, as in torch.
        betas: decay of Adam's first and second moments.
        epsilon: added to the root of Adam's second moment.
        radius: SAM's ρ, the distance to the worst point nearby.
        weight_decay: on every trainable tensor.
        schedule: ``constant`` or ``cosine`` (to zero at the end).
        warmup: steps over which the rate rises linearly from rate/warmup.
        batch_size: examples in a step.
        last_batch: ``keep`` an uneven last batch of an epoch (its mean counts as one step) or ``drop`` it.
        epochs: passes over the training set.
        steps: the number of steps instead, where given.
        loss: ``cross_entropy`` or ``squared_error`` (against the one-hot class).
        label_smoothing: share of the target spread over all classes.
        label_noise: share of the training labels replaced by another class, the same ones throughout.
        subset: how many training examples are used, drawn by the subset's seed; all where None.
        augmentation: some of ``crop``, ``flip``, ``cutout``, applied to training images.
        crop_padding: pixels around the image before a crop of its size.
        cutout_size: side of the square set to zero.
        precision: ``float32``, ``float64``, ``bfloat16`` (autocast; weights stay float32; a CPU without bfloat16
            instructions was measured to train 2 to 14 times slower so) or ``tensorfloat32`` (float32 whose products are
            rounded to ten bits on GPUs that can, several times faster there).
        spawn: steps that are trained together before replicas go apart; 0 means none.
        spawn_seed: which of the replicas after the spawn this is.
        spawn_vary: what differs after the spawn: some of ``order``, ``augmentation``, ``perturbation``.
        perturbation: norm of the Gaussian kick at the spawn, relative to the norm of the weights.
        sparsity: share of the entries of weight matrices and kernels that are zero from the start, at random positions.
        pruning_levels: rounds of iterative magnitude pruning (IMP): train, remove, rewind, train again.
        pruning_rate: share of the remaining weights removed in a round, smallest magnitudes over all layers first.
        rewind: the step whose weights a round goes back to.
        checkpoints: steps after which the weights are kept; 0 is the initialisation.
        initialisation_seed: weights at the start.
        order_seed: order of the examples.
        augmentation_seed: crops, flips and cutouts.
        label_noise_seed: which labels are wrong, and how.
        subset_seed: which examples are used.
        mask_seed: which weights are zero from the start.

    Example:
        >>> recipe = Recipe(network="mlp-32x1", epochs=2)
        >>> Recipe.from_dict(recipe.to_dict()).key() == recipe.key()
        True
    """

    network: str = "mlp-64x2"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    data: str = "digits"
    optimiser: str = "sgd"
    # With this momentum and batch size two hidden layers are at the edge of stability at .1: the error of mlp-64x2 on
    # digits is .028 at .1 and .015 at .05, on 10,000 images of fashion-mnist .81 and .19.
    rate: float = 0.05
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    radius: float = 0.05
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup: int = 0
    batch_size: int = 32
    last_batch: str = "keep"
    epochs: int = 10
    steps: int | None = None
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    label_noise: float = 0.0
    subset: int | None = None
    augmentation: tuple[str, ...] = ()
    crop_padding: int = 4
    cutout_size: int = 8
    precision: str = "float32"
    spawn: int = 0
    spawn_seed: int = 0
    spawn_vary: tuple[str, ...] = ("order",)
    perturbation: float = 0.0
    sparsity: float = 0.0
    pruning_levels: int = 0
    pruning_rate: float = 0.2
    rewind: int = 0
    checkpoints: tuple[int, ...] = ()
    initialisation_seed: int = 0
    order_seed: int = 0
    augmentation_seed: int = 0
    label_noise_seed: int = 0
    subset_seed: int = 0
    mask_seed: int = 0

    def __post_init__(self) -> None:
        self._normalise()
        self._check_choices()
        self._check_ranges()
        self._check_combinations()

    def __hash__(self) -> int:
        return hash(self.key())

    def __reduce__(self) -> tuple[Any, ...]:
        """Recipes travel to worker processes as plain values (the read-only settings cannot be pickled)."""
        return Recipe.from_dict, (self.to_dict(),)

    def key(self) -> str:
        """SHA-256 over the schema version and every field, as 64 hexadecimal digits."""
        text = json.dumps({"schema": SCHEMA, **self.to_dict()}, sort_keys=True, allow_nan=False, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain values, in their order."""
        return plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        """A recipe from plain values; what is left out has its default.

        Raises:
            SettingError: a field is unknown (with the nearest one), or out of its range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := [name for name in values if name not in known]:
            hint = near(unknown[0], known) or f"; its fields are {', '.join(known)}"
            raise SettingError(f"a recipe has no field {listed(unknown)}{hint}")
        return cls(**values)

    def replicates(
        self, count: int, *, vary: Sequence[str] = ("initialisation", "order", "augmentation")
    ) -> list[Recipe]:
        """Recipes that differ in the named seeds only: 0, 1, …, count − 1.

        Args:
            count: how many.
            vary: some of ``initialisation``, ``order``, ``augmentation``, ``label_noise``, ``subset``, ``mask``,
                ``spawn`` (needs a spawn: with 0 steps together, vary the order instead); a family from one
                initialisation leaves that one out.

        Raises:
            SettingError: an unknown seed, or a spawn's where there is no spawn.
        """
        if unknown := [name for name in vary if name not in (*SEEDS, "spawn")]:
            raise SettingError(f"vary must be some of {listed((*SEEDS, 'spawn'), 20)}, got {listed(unknown)}")
        if set(vary) == {"spawn"} and not self.spawn and count > 1:
            raise SettingError("replicas that vary in spawn alone part after it, so spawn must be above 0, got 0")
        copies = (dataclasses.replace(self, **{f"{name}_seed": seed for name in vary}) for seed in range(count))
        return list[Recipe](copies)

    def total_steps(self, examples: int) -> int:
        """Steps of one training on so many examples."""
        return self.steps if self.steps is not None else self.epochs * self.steps_in_epoch(examples)

    def steps_in_epoch(self, examples: int) -> int:
        """Steps of one pass, with the uneven last batch kept or dropped as the recipe says."""
        size = min(self.batch_size, examples)
        return examples // size if self.last_batch == "drop" else math.ceil(examples / size)

    def rate_at(self, step: int, total: int) -> float:
        """The learning rate of step 0 … total − 1: linear warm-up, then the schedule over what remains."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.rate
        share = (step - self.warmup) / max(1, total - self.warmup)
        return self.rate * 0.5 * (1 + math.cos(math.pi * share))

    def _normalise(self) -> None:
        """Lists from files become tuples, whole floats whole numbers, so that equal recipes have equal keys."""
        for name in ("betas", "augmentation", "spawn_vary", "checkpoints"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise SettingError(f"{name} must be a list, got {value!r}")
            object.__setattr__(self, name, tuple(value))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "float":
                object.__setattr__(self, field.name, _number(field.name, value))
            elif field.type in ("int", "int | None") and not (value is None and "None" in str(field.type)):
                object.__setattr__(self, field.name, _whole(field.name, value))
            elif field.type == "bool" and not isinstance(value, bool):
                raise SettingError(f"{field.name} must be true or false, got {value!r}")
            elif field.type == "str" and not isinstance(value, str):
                raise SettingError(f"{field.name} must be a word, got {value!r}")
        object.__setattr__(self, "betas", tuple(_number("betas", beta) for beta in self.betas))
        object.__setattr__(
            self,
            "augmentation",
            tuple(name for name in AUGMENTATIONS if name in self.augmentation)
            + tuple(name for name in self.augmentation if name not in AUGMENTATIONS),
        )
        object.__setattr__(self, "checkpoints", tuple(sorted({_whole("checkpoints", s) for s in self.checkpoints})))
        if not isinstance(self.settings, Mapping):
            raise SettingError(f"settings must be a table of names and values, got {self.settings!r}")
        try:
            settings = json.loads(json.dumps(plain(self.settings), allow_nan=False))
        except (TypeError, ValueError):
            raise SettingError("settings must hold plain values (numbers, words, lists)") from None
        object.__setattr__(self, "settings", types.MappingProxyType(settings))

    def _check_choices(self) -> None:
        choices = {"optimiser": OPTIMISERS, "schedule": SCHEDULES, "precision": PRECISIONS, "loss": LOSSES}
        for name, known in {**choices, "last_batch": ("keep", "drop")}.items():
            if (value := getattr(self, name)) not in known:
                raise SettingError(f"{name} must be one of {listed(known)}, got {value}{near(value, known)}")
        for name, known in {
            "augmentation": AUGMENTATIONS,
            "spawn_vary": ("order", "augmentation", "perturbation"),
        }.items():
            if unknown := [value for value in getattr(self, name) if value not in known]:
                raise SettingError(f"{name} must be some of {listed(known)}, got {listed(unknown)}")

    def _check_ranges(self) -> None:
        least: Mapping[str, float] = {
            "rate": 0, "momentum": 0, "epsilon": 0, "radius": 0, "weight_decay": 0, "warmup": 0, "batch_size": 1,
            "epochs": 0, "steps": 0, "subset": 1, "crop_padding": 0, "cutout_size": 1, "spawn": 0, "perturbation": 0,
            "pruning_levels": 0, "rewind": 0,
        }  # fmt: skip
        for name, low in least.items():
            if (value := getattr(self, name)) is not None and value < low:
                raise SettingError(f"{name} must be at least {low}, got {value}")
        for name in ("label_smoothing", "label_noise", "sparsity", "pruning_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise SettingError(f"betas must be two numbers of at least 0 and below 1, got {self.betas}")
        if self.checkpoints and self.checkpoints[0] < 0:
            raise SettingError(f"checkpoints must be steps of at least 0, got {self.checkpoints[0]}")

    def _check_combinations(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise SettingError("nesterov needs a momentum above 0, got 0")
        if self.loss == "squared_error" and self.label_smoothing:
            raise SettingError("label_smoothing goes with cross_entropy only; set it to 0")
        if self.pruning_levels and self.spawn:
            raise SettingError("pruning_levels and spawn cannot be combined; rewinding already shares the first steps")
        if self.steps is not None and max(self.spawn, self.rewind) > self.steps:
            raise SettingError(
                f"spawn and rewind must lie within the {self.steps} steps, got {max(self.spawn, self.rewind)}"
            )


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise SettingError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise SettingError(f"{name} must be a whole number, got {value!r}")
    return int(value)
