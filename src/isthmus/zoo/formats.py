"""The published file formats of MNIST, Fashion-MNIST and CIFAR-10, read as they were published."""

from __future__ import annotations

import gzip
import pickle
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.core.errors import DataError, first_line, listed

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

# Published MD5 sums (they guard against damage in transit, not against an adversary), and mirrors known to last.
_IDX_URL: Mapping[str, str] = {
    "mnist": "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "fashion-mnist": "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
}
_IDX_FILES: Mapping[str, Mapping[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}
# What people call the folder of each, this library first, then torchvision.
_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "mnist": ("mnist", "MNIST/raw"),
    "fashion-mnist": ("fashion-mnist", "FashionMNIST/raw"),
    "cifar10": ("cifar10",),
}
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
_CIFAR_MD5 = "c58f30108f718f92721af3b95e74349a"


def idx(name: str, folder: str | Path | None) -> Arrays:
    """MNIST or Fashion-MNIST: pixels ``(examples, 1, 28, 28)`` and labels, training then test.

    The four files may be gzipped or not. They may lie in ``folder`` itself, in ``raw`` inside it, or in a folder
    inside it that bears the name of the set (``mnist``, ``MNIST/raw``), which goes before: both sets name their files
    alike.

    Raises:
        DataError: a file is missing or damaged.
    """
    parts = []
    for file, md5 in _IDX_FILES[name].items():
        if folder is not None:
            path = _present(_places(folder, name), [file, file.removesuffix(".gz")], what=name)
        else:
            path = _fetched(_IDX_URL[name] + file, md5, f"{name}/{file}")
        parts.append(_idx_array(path))
    pixels, labels, test_pixels, test_labels = parts
    return pixels[:, None], labels, test_pixels[:, None], test_labels


def _idx_array(path: Path) -> np.ndarray:
    """One idx file: two zero bytes, a type byte (8: unsigned byte), the number of axes, big-endian sizes, the bytes."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as problem:
        raise DataError(f"{path} must be a whole gzip file, but: {str(problem).lower()}; fetch it again") from None
    axes = content[3] if len(content) >= 4 else 0
    if content[:3] != b"\0\0\x08" or not 1 <= axes <= 4 or len(content) < 4 + 4 * axes:
        raise DataError(f"{path} must be an idx file of unsigned bytes, but its first bytes are {content[:4].hex(' ')}")
    sizes = np.frombuffer(content, ">u4", axes, 4).astype(int)
    entries = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if entries.size != sizes.prod():
        shape = "×".join(str(size) for size in sizes)
        raise DataError(f"{path} must hold {shape} bytes after its header, got {entries.size}; fetch it again")
    return entries.reshape(sizes)


def cifar10(folder: str | Path | None) -> Arrays:
    """CIFAR-10 in its binary or its Python layout: pixels ``(examples, 3, 32, 32)`` and labels, training then test.

    The files may lie in ``folder`` itself, in the ``cifar-10-batches-*`` folder inside it, or in such a folder inside
    ``cifar10``.

    Raises:
        DataError: a file is missing or damaged.
    """
    place = Path(folder) if folder is not None else _fetched_cifar()
    for inner, suffix, read in (
        ("cifar-10-batches-bin", ".bin", _cifar_binary),
        ("cifar-10-batches-py", "", _cifar_python),
    ):
        for root in (*(each / inner for each in _places(place, "cifar10")), place):
            if (root / f"data_batch_1{suffix}").is_file():
                names = [f"data_batch_{index}{suffix}" for index in range(1, 6)]
                parts = [read(_present([root], [name], what="cifar10")) for name in names]
                pixels, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
                return (pixels, labels, *read(_present([root], [f"test_batch{suffix}"], what="cifar10")))
    raise DataError(
        f"{place} must hold cifar10 as published (data_batch_1.bin, or the Python layout's data_batch_1), "
        f"found neither; it holds {_contents(place)}"
    )


def _cifar_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Records of one label byte and 3072 pixel bytes: red, green, blue planes."""
    content = np.fromfile(path, np.uint8)
    if content.size == 0 or content.size % 3073:
        raise DataError(f"{path} must hold records of 3073 bytes, got {content.size} bytes; fetch it again")
    records = content.reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def _cifar_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dictionary with ``data`` and ``labels``; only NumPy arrays and plain values are let through."""
    try:
        with path.open("rb") as file:
            content: Any = _PlainUnpickler(file, encoding="bytes").load()
        pixels = np.asarray(content[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        return pixels, np.asarray(content[b"labels"], dtype=np.uint8)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, IndexError, AttributeError) as problem:
        raise DataError(f"{path} must be a CIFAR-10 batch of the Python layout: {str(problem) or 'damaged'}") from None


class _PlainUnpickler(pickle.Unpickler):
    """Refuses everything but what NumPy arrays are made of, so that a file cannot run code."""

    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype", "scalar", "_frombuffer", "encode"})

    def find_class(self, module: str, name: str) -> Any:
        if name in self._ALLOWED and (
            module.split(".", maxsplit=1)[0] == "numpy" or (module, name) == ("_codecs", "encode")
        ):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs; it was not run")


def _places(folder: str | Path, name: str) -> list[Path]:
    """Where the files of a set may lie: in a folder of its name, in the folder itself, or in ``raw`` (torchvision)."""
    root = Path(folder)
    return [*(root / inner for inner in _FOLDERS[name]), root, root / "raw"]


def _present(places: Sequence[Path], names: Sequence[str], *, what: str) -> Path:
    """The first of ``names`` that lies in one of the places.

    Raises:
        DataError: none does.
    """
    for root in places:
        for name in names:
            if (root / name).is_file():
                return root / name
    folder = min(places, key=lambda place: len(place.parts))
    state = f"it holds {_contents(folder)}" if folder.is_dir() else "there is no such folder"
    raise DataError(f"{folder} must hold {what} as published; needed {names[0]}, but {state}")


def _contents(folder: Path) -> str:
    """The first few names in a folder."""
    try:
        return listed(sorted(entry.name for entry in folder.iterdir())) or "nothing"
    except OSError:
        return "nothing that can be read"


def _fetched(url: str, md5: str, place: str) -> Path:
    """A file from pooch's cache, fetched and checked when it is not there."""
    import pooch

    cache = Path(pooch.os_cache("isthmus")) / place
    try:
        pooch.get_logger().setLevel("WARNING")
        return Path(pooch.retrieve(url, f"md5:{md5}", fname=cache.name, path=cache.parent))
    except Exception as problem:  # pooch passes on whatever the transport raises
        reason = first_line(problem)
        raise DataError(
            f"{place} could not be fetched from {url} ({reason[:120]}); fetch it yourself and give its folder"
        ) from problem


def _fetched_cifar() -> Path:
    archive = _fetched(_CIFAR_URL, _CIFAR_MD5, "cifar10/cifar-10-python.tar.gz")
    if not (archive.parent / "cifar-10-batches-py" / "test_batch").is_file():
        with tarfile.open(archive) as packed:
            packed.extractall(archive.parent, filter="data")
    return archive.parent
