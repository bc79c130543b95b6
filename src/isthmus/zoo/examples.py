"""Examples that a capability shows on: one set, without a division into training and test."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import torch
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.core.losses import IGNORED
from isthmus.core.network import Network
from isthmus.zoo.arrays import arrays_of, pair_of
from isthmus.zoo.data import Data, load
from isthmus.zoo.text import as_taken


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Inputs with their class numbers.

    Attributes:
        inputs: examples first.
        targets: class numbers from 0; the set need not hold every class.
        name: what they were loaded from.
        fingerprint: SHA-256 of both tensors.
    """

    inputs: Tensor
    targets: Tensor
    name: str = "own"

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets) or len(self.targets) == 0:
            raise DataError(
                f"{self.name}: inputs and labels must be equally many and at least one, got {len(self.inputs)} and "
                f"{len(self.targets)}"
            )
        if self.inputs.is_floating_point() and not bool(torch.isfinite(self.inputs).all()):
            raise DataError(f"{self.name}: inputs must be finite, got NaN or Inf")
        labels = self.targets if self.targets.dim() == 1 else self.targets[self.targets != IGNORED]
        if labels.numel() == 0 or int(labels.min()) < 0:
            found = int(labels.min()) if labels.numel() else f"{IGNORED} alone"
            raise DataError(f"{self.name}: labels must be class numbers from 0, got {found}")

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over types, shapes and bytes, as that of data."""
        classes = int(self.targets.max()) + 1
        return Data(self.inputs, self.targets, self.inputs, self.targets, classes, self.name).fingerprint

    def suited(self, network: Network) -> Examples:
        """The same examples in the type that a network takes: token numbers where it looks them up."""
        inputs = as_taken(self.inputs, network)
        return self if inputs is self.inputs else dataclasses.replace(self, inputs=inputs)

    def to(self, device: str | torch.device) -> Examples:
        """The same examples on another device."""
        return Examples(self.inputs.to(device), self.targets.to(device), self.name)


def load_examples(spec: str, folder: str | Path | None = None) -> Examples:
    """Examples to evaluate on: a whole ``.npz`` of ``x`` and ``y``, else only the test part of what is named.

    Args:
        spec: as for :func:`isthmus.zoo.data.load`. Of an ``.npz`` with ``x_test`` and ``y_test``, and of the built-in
            sets, networks have usually seen the rest in training: it is left out. Nothing is normalised in an
            ``.npz`` but bytes, which are divided by 255.
        folder: where published files are.

    Raises:
        DataError: the source is missing or damaged, or has a wrong shape.
    """
    if spec.endswith(".npz"):
        path = Path(spec)
        arrays = arrays_of(path)
        part = "_test" if "x_test" in arrays else ""
        return Examples(*pair_of(arrays, part, path), spec)
    found = load(spec, folder)
    return Examples(found.test_inputs, found.test_targets, spec)
