"""A user's own examples as arrays in a file."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from isthmus.core.errors import DataError, listed


def pairs_of(path: Path) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None]:
    """Inputs and labels of the training set, and of the test set where the file holds one.

    Raises:
        DataError: the file is missing or damaged, or its arrays are no examples.
    """
    arrays = arrays_of(path)
    return pair_of(arrays, "", path), pair_of(arrays, "_test", path) if "x_test" in arrays else None


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    """What an .npz file holds: ``x`` and ``y``, and both ``x_test`` and ``y_test`` or neither.

    Raises:
        DataError: it is missing or damaged, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"{path} must be an .npz file, but there is none") from None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as problem:
        raise DataError(f"{path} must be a whole .npz file without pickled objects: {str(problem).lower()}") from None
    if missing := [name for name in ("x", "y") if name not in arrays]:
        raise DataError(f"{path} must hold x and y; missing {listed(missing)}, found {listed(arrays) or 'nothing'}")
    if ("x_test" in arrays) != ("y_test" in arrays):
        raise DataError(f"{path} must hold both x_test and y_test or neither")
    if unread := sorted(set(arrays) - {"x", "y", "x_test", "y_test"}):
        raise DataError(
            f"{path} must hold x, y, x_test and y_test alone, since nothing else would reach the model, got "
            f"{listed(unread)}; leave them out, or let the model make them (an attention mask from the padding, say)"
        )
    return arrays


def pair_of(arrays: dict[str, np.ndarray], part: str, path: Path) -> tuple[Tensor, Tensor]:
    """Inputs and labels of one part of a file: ``""`` or ``"_test"``.

    Raises:
        DataError: they are no numbers, or labels of the wrong shape.
    """
    inputs, targets = arrays[f"x{part}"], arrays[f"y{part}"]
    return _inputs(inputs, path), _labels(targets, path, several=_each_place(inputs.dtype, inputs.shape, targets.shape))


def _each_place(kind: np.dtype, shape: tuple[int, ...], labels: tuple[int, ...]) -> bool:
    """Whether labels are one for each token of a text, each step of a sequence or each pixel of an image."""
    if len(labels) < 2:
        return False
    tokens = kind.kind in "iu" and shape == labels
    steps = len(shape) == 3 and labels == shape[:2]
    pixels = len(shape) > 3 and labels == (shape[0], *shape[2:])
    return tokens or steps or pixels


def _inputs(array: np.ndarray, path: Path) -> Tensor:
    if array.ndim < 2 or array.dtype.kind not in "fiub":
        raise DataError(f"{path}: x must be numbers with the examples first, got {array.dtype} of shape {array.shape}")
    if array.dtype == np.uint8:  # pixels, by universal habit
        return torch.from_numpy(array).float().div_(255)
    return torch.from_numpy(np.ascontiguousarray(array)).to(torch.float32)


def _labels(array: np.ndarray, path: Path, *, several: bool) -> Tensor:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1 and not several:
        raise DataError(
            f"{path}: y must be one class number for each example (or token, step or pixel), got shape {array.shape}"
        )
    if array.dtype.kind not in "iub" and not (array.dtype.kind == "f" and bool(np.all(array == np.floor(array)))):
        raise DataError(f"{path}: y must be whole class numbers from 0, got {array.dtype}")
    return torch.from_numpy(array.astype(np.int64))
