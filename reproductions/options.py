"""What every script of this folder is asked: the options that all have, and the data that they name."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from isthmus.core.errors import DataError, listed
from isthmus.zoo import load_data
from isthmus.zoo.data import Data, images

SHAPES = ((3, 32, 32), (1, 28, 28))


def loaded(name: str, folder: Path, *, device: str, examples: int | None = None) -> Data:
    """Images on the device: from ``NAME.npz`` (x, y, x_test, y_test; pixels as bytes) or from a folder ``NAME``.

    Raises:
        DataError: the file's images are not (examples, channels, rows, columns).
    """
    file = folder / f"{name}.npz"
    if file.exists():
        with np.load(file) as arrays:
            parts = [arrays[key] for key in ("x", "y", "x_test", "y_test")]
        for part in parts[::2]:
            if part.shape[1:] not in SHAPES:  # with the channels last a network trains too, only badly
                raise DataError(
                    f"{file} must hold images of one of the shapes {listed(map(str, SHAPES))}, got {part.shape[1:]}"
                )
        data = images(*parts, classes=10, name=name)
    else:
        data = load_data(name, folder / name)
    return (data.limited(examples) if examples else data).to(device)


def arguments(question: str | None, folder: str) -> argparse.ArgumentParser:
    """The options that every script has."""
    words = argparse.ArgumentParser(description=(question or "").splitlines()[0])
    words.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    words.add_argument("--output", type=Path, default=Path(folder), help="folder of the results")
    words.add_argument("--also", nargs="*", type=Path, default=[], help="recorded results whose cells count, too")
    words.add_argument("--engine", default="auto", help="of training; see isthmus.train")
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return words


def settings_of(asked: argparse.Namespace, *, but: Sequence[str] = ()) -> dict[str, Any]:
    """What results depend on: all options but those that every script has, and those named."""
    shared = ("data", "output", "also", "engine", "device")
    return {name: value for name, value in vars(asked).items() if name not in (*shared, *but)}
