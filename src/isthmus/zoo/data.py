"""Data sets as plain tensors: built in, in their published file formats, or the user's own.

Images are float32, ``(examples, channels, height, width)``. Pixels are scaled to [0, 1], then each channel is shifted
and divided by the mean and deviation *of the training set as loaded* (one number for each channel), so that training
inputs have mean 0 and deviation 1. Test inputs use the training set's numbers.
"""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isthmus.core.errors import DataError, first_line, listed, raised
from isthmus.core.losses import IGNORED, check_labels
from isthmus.core.randomness import child
from isthmus.zoo import formats
from isthmus.zoo.arrays import pairs_of

BUILT_IN = ("digits", "mnist", "fashion-mnist", "cifar10")


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """Training and test examples of one classification task.

    Attributes:
        train_inputs: examples first.
        train_targets: class numbers from 0.
        test_inputs: of the same shape after the first axis.
        test_targets: class numbers from 0.
        classes: how many classes there are.
        name: what it was loaded from.
        fingerprint: SHA-256 of all four tensors, which goes into provenance.
    """

    train_inputs: Tensor
    train_targets: Tensor
    test_inputs: Tensor
    test_targets: Tensor
    classes: int
    name: str = "own"

    def __post_init__(self) -> None:
        for split, inputs, targets in self._splits():
            if len(inputs) != len(targets):
                raise DataError(
                    f"{self.name}: {split} inputs and labels must be equally many, got {len(inputs)} and {len(targets)}"
                )
            if len(targets) == 0:
                raise DataError(f"{self.name}: the {split} set must hold at least one example, got none")
            if inputs.is_floating_point() and not bool(torch.isfinite(inputs).all()):
                raise DataError(f"{self.name}: {split} inputs must be finite, got NaN or Inf")
            try:
                check_labels(targets, self.classes)
            except DataError as problem:
                raise DataError(f"{self.name}: {problem}") from None
        if self.train_inputs.shape[1:] != self.test_inputs.shape[1:]:
            shapes = f"{tuple(self.train_inputs.shape[1:])} and {tuple(self.test_inputs.shape[1:])}"
            raise DataError(f"{self.name}: training and test inputs must have one shape, got {shapes}")

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.shape)) or "1"
        counts = f"{len(self.train_targets):,} training and {len(self.test_targets):,} test examples"
        return f"<Data {self.name}: {counts} of {shape}, {self.classes} classes>"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""
        return tuple(self.train_inputs.shape[1:])

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over types, shapes and bytes of all examples."""
        digest = hashlib.sha256()
        for _, inputs, targets in self._splits():
            for tensor in (inputs, targets):
                digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def limited(self, examples: int) -> Data:
        """The first ``examples`` of the training set and as many of the test set (or all there are).

        Raises:
            DataError: fewer than one example.
        """
        if examples < 1:
            raise DataError(f"{self.name}: a limit must be at least 1 example, got {examples}")
        return dataclasses.replace(
            self,
            train_inputs=self.train_inputs[:examples],
            train_targets=self.train_targets[:examples],
            test_inputs=self.test_inputs[:examples],
            test_targets=self.test_targets[:examples],
        )

    def to(self, device: str | torch.device) -> Data:
        """The same data on another device."""
        return self.with_tensors(**{name: getattr(self, name).to(device) for name in _TENSORS})

    def with_tensors(self, **tensors: Tensor) -> Data:
        """The same examples held elsewhere or in another type: their fingerprint stays that of what was loaded."""
        same = dataclasses.replace(self, **tensors)
        if "fingerprint" in vars(self):
            vars(same)["fingerprint"] = self.fingerprint
        return same

    def _splits(self) -> tuple[tuple[str, Tensor, Tensor], tuple[str, Tensor, Tensor]]:
        return (
            ("training", self.train_inputs, self.train_targets),
            ("test", self.test_inputs, self.test_targets),
        )


_TENSORS = ("train_inputs", "train_targets", "test_inputs", "test_targets")


def load(spec: str, folder: str | Path | None = None) -> Data:
    """Load a data set by name or from the user's own source.

    Args:
        spec: ``digits`` (scikit-learn, 8×8 pixels), ``mnist``, ``fashion-mnist`` or ``cifar10``; a path to an ``.npz``
            file with ``x`` and ``y``, one class for each example or for each of its tokens, steps or pixels, where −100
            counts in nothing (optionally ``x_test`` and ``y_test``); a ``.txt`` file, read as characters in
            examples of 64 (:func:`isthmus.zoo.text.characters`); or ``module:function`` (also
            ``path/to/file.py:function``) that returns a :class:`Data`, a torch ``Dataset``, or a pair of them
            (training, test). Without a test set a fifth of the examples, drawn with a fixed seed, is held out.
            Whole numbers in an ``.npz`` file may be pixels or tokens and are read as real numbers;
            :func:`isthmus.zoo.suited` makes them what a network takes, as every command does.
        folder: where the published files are, for the three large sets. Without it they are looked for in pooch's cache
            and fetched there, with their checksums, when a network is there.

    Raises:
        DataError: the source is missing or damaged, has a wrong shape, or labels out of range.

    Example:
        >>> load("digits").train_inputs.shape[1:]
        torch.Size([1, 8, 8])
    """
    if spec == "digits":
        return _digits()
    if spec in BUILT_IN:
        arrays = formats.cifar10(folder) if spec == "cifar10" else formats.idx(spec, folder)
        return images(*arrays, classes=10, name=spec)
    if spec.endswith(".npz"):
        return _npz(Path(spec))
    if spec.endswith(".txt"):
        from isthmus.zoo.text import characters

        return characters(spec)
    if ":" in spec:
        return _own(spec)
    raise DataError(
        f"data must be one of {listed(BUILT_IN)}, an .npz file with x and y, a .txt file or module:function, got {spec}"
    )


def images(
    train_inputs: np.ndarray,
    train_targets: np.ndarray,
    test_inputs: np.ndarray,
    test_targets: np.ndarray,
    *,
    classes: int,
    name: str,
) -> Data:
    """Data from pixels of 0 to 255, ``(examples, channels, height, width)``, normalised as this module says.

    Raises:
        DataError: the channels come last, as image files have them.
    """
    for array in (train_inputs, test_inputs):
        if array.ndim == 4 and array.shape[1] == array.shape[2] > 4 >= array.shape[3]:
            raise DataError(
                f"{name}: images must be (examples, channels, height, width), got shape {array.shape}; "
                "move the last axis to the second place"
            )
    train = torch.from_numpy(np.array(train_inputs)).float().div_(255)  # a copy: file contents are read-only
    test = torch.from_numpy(np.array(test_inputs)).float().div_(255)
    mean = train.mean((0, 2, 3), keepdim=True)
    deviation = train.std((0, 2, 3), keepdim=True).clamp_min(1e-6)  # a constant channel stays at zero
    targets = (torch.from_numpy(np.array(part, dtype=np.int64)) for part in (train_targets, test_targets))
    train_labels, test_labels = targets
    return Data(
        train.sub_(mean).div_(deviation), train_labels, test.sub_(mean).div_(deviation), test_labels, classes, name
    )


def _digits() -> Data:
    """Scikit-learn's 1,797 digits; 1,437 to train, 360 to test, split once and for all by a fixed seed."""
    table = _table_of_digits()
    pixels = (table[:, :64].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.float32)
    targets = table[:, 64].astype(np.int64)
    order = torch.randperm(len(pixels), generator=child(0, "digits", "split")).numpy()
    train, test = order[:1437], order[1437:]
    return images(pixels[train], targets[train], pixels[test], targets[test], classes=10, name="digits")


def _table_of_digits() -> np.ndarray:
    """A row for each digit: 64 pixels of 0 to 16 and the label.

    Read from scikit-learn's own file where that is where it has always been: importing all that ``sklearn.datasets``
    imports takes more than a second of a command that may need less for everything else.
    """
    place = importlib.util.find_spec("sklearn")
    file = Path(place.origin).parent / "datasets" / "data" / "digits.csv.gz" if place and place.origin else None
    if file is not None and file.is_file():
        with gzip.open(file, "rt", encoding="ascii") as rows:
            return np.loadtxt(rows, delimiter=",")
    from sklearn.datasets import load_digits

    source: Any = load_digits()
    return np.column_stack([source.data, source.target])


def _npz(path: Path) -> Data:
    train, test = pairs_of(path)
    return _classified(train, test, str(path))


def _own(spec: str) -> Data:
    from isthmus.zoo.models import function

    try:
        made = function(spec, error=DataError)()
    except DataError:
        raise
    except Exception as problem:
        raise DataError(f"{spec} must return data, but raised {raised(problem)}") from problem
    if isinstance(made, Data):
        return made
    parts = made if isinstance(made, tuple | list) and len(made) == 2 else (made, None)
    train = _examples(parts[0], spec)
    return _classified(train, _examples(parts[1], spec) if parts[1] is not None else None, spec)


def _examples(dataset: Any, spec: str) -> tuple[Tensor, Tensor]:
    """All examples of a torch Dataset as two tensors."""
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise DataError(f"{spec} must return a Data or a torch Dataset with a length, got {type(dataset).__name__}")
    pairs: list[Any] = []
    try:
        pairs = [dataset[index] for index in range(len(dataset))]
        inputs = torch.stack([torch.as_tensor(pair[0]) for pair in pairs])
        targets = torch.as_tensor([int(pair[1]) for pair in pairs])
    except Exception as problem:
        raise DataError(
            f"{spec}: every item must be an (input tensor, class number) pair of one shape, {_told(pairs, problem)}"
        ) from problem
    return (inputs.float() if not inputs.is_floating_point() else inputs), targets


def _told(items: Sequence[Any], problem: Exception) -> str:
    """What a data set gives instead of pairs of tensors, and what to do."""
    first = items[0] if items else None
    if isinstance(first, Mapping):
        return f"got tables of {listed(first)}; wrap the data set in one whose items are two of them, as tensors"
    if isinstance(first, tuple | list) and first and not isinstance(first[0], Tensor | np.ndarray | int | float):
        return f"got {type(first[0]).__module__}.{type(first[0]).__name__} as input; turn it into a tensor first"
    return f"but: {first_line(problem)}"


def _classified(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor] | None, name: str) -> Data:
    """Data from one or two splits; classes are counted, a missing test split is held out."""
    for inputs, targets in (train, *([test] if test else [])):
        if len(inputs) != len(targets):
            raise DataError(f"{name}: inputs and labels must be equally many, got {len(inputs)} and {len(targets)}")
    if len(train[1]) == 0:
        raise DataError(f"{name}: the training set must hold at least one example, got none")
    if test is None:
        train, test = _held_out(train, name)
    labels = train[1] if train[1].dim() == 1 else train[1][train[1] != IGNORED]
    if labels.numel() == 0:
        raise DataError(f"{name}: the training set must hold a label that counts, but all are {IGNORED}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise DataError(f"{name}: labels must be whole class numbers from 0, got {low}")
    if high >= max(labels.numel(), 2):
        raise DataError(f"{name}: labels must be class numbers from 0 without large gaps, got up to {high}")
    return Data(*train, *test, classes=high + 1, name=name)


def _held_out(whole: tuple[Tensor, Tensor], name: str) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    inputs, targets = whole
    if len(targets) < 5:
        raise DataError(f"{name}: at least 5 examples are needed to hold out a test set, got {len(targets)}")
    order = torch.randperm(len(targets), generator=child(0, "own data", "split"))
    edge = len(targets) - len(targets) // 5
    train, test = order[:edge], order[edge:]
    return (inputs[train], targets[train]), (inputs[test], targets[test])
