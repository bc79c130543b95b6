"""Data sets in their published formats; everything wrong with them is one line."""

import gzip
import pickle
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from isthmus.core.errors import DataError
from isthmus.zoo.data import Data, _table_of_digits, images, load
from isthmus.zoo.formats import _fetched

SHARED = Path(__file__).parents[3] / "shared" / "data"


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def mnist(tmp_path) -> Path:
    generator = np.random.default_rng(0)
    for stem, count in (("train", 30), ("t10k", 12)):
        pixels = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (tmp_path / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(pixels)))
        (tmp_path / f"{stem}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))  # one of them unpacked
    return tmp_path


def cifar_arrays(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 3072), dtype=np.uint8), generator.integers(0, 10, count, dtype=np.uint8)


def write_cifar(folder: Path, layout: str) -> None:
    place = folder / f"cifar-10-batches-{layout}"
    place.mkdir()
    for seed, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        pixels, labels = cifar_arrays(7, seed)
        if layout == "bin":
            np.concatenate([labels[:, None], pixels], 1).tofile(place / f"{name}.bin")
        else:
            content = {b"data": pixels, b"labels": labels.tolist(), b"batch_label": b"x"}
            (place / name).write_bytes(pickle.dumps(content, protocol=2))


def test_digits_are_normalised_by_the_training_set():
    data = load("digits")
    assert (len(data.train_targets), len(data.test_targets), data.classes) == (1437, 360, 10)
    assert float(data.train_inputs.mean()) == pytest.approx(0, abs=1e-5)
    assert float(data.train_inputs.std()) == pytest.approx(1, abs=1e-5)
    assert load("digits").fingerprint == data.fingerprint
    assert data.limited(100).fingerprint != data.fingerprint


@pytest.mark.parametrize("at_hand", [True, False])
def test_digits_are_scikit_learns_whichever_way_they_are_read(at_hand, monkeypatch):
    if not at_hand:
        monkeypatch.setattr("isthmus.zoo.data.importlib.util.find_spec", lambda name: None)
    source = load_digits()
    table = _table_of_digits()
    assert np.array_equal(table[:, :64], source.data)
    assert np.array_equal(table[:, 64], source.target)


def test_digits_and_networks_of_the_zoo_import_nothing_slow():
    program = (
        "import sys; from isthmus.zoo.data import load; from isthmus.zoo.networks import network; load('digits'); "
        "network('resnet20', inputs=(1, 8, 8)); print(*({'sklearn', 'scipy', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_idx_files_packed_or_not(mnist):
    data = load("mnist", folder=mnist)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8) / 255
    wanted = (pixels - pixels.mean()) / pixels.std(ddof=1)
    np.testing.assert_allclose(data.train_inputs[:, 0].numpy(), wanted, atol=1e-5)
    assert data.test_targets.tolist() == [*range(10), 0, 1]


def test_both_layouts_of_cifar_are_one_data_set(tmp_path):
    loaded = []
    for layout in ("bin", "py"):
        folder = tmp_path / layout
        folder.mkdir()
        write_cifar(folder, layout)
        loaded.append(load("cifar10", folder=folder))
        assert load("cifar10", folder=folder / f"cifar-10-batches-{layout}").fingerprint == loaded[-1].fingerprint
    assert loaded[0].fingerprint == loaded[1].fingerprint
    pixels, labels = cifar_arrays(7, 1)
    assert loaded[0].train_targets[7:14].tolist() == labels.tolist()
    ratio = loaded[0].train_inputs[7, 2, 31, 31] - loaded[0].train_inputs[8, 2, 31, 31]
    blue = pixels[:, 2 * 1024 + 1023].astype(float)
    assert np.sign(float(ratio)) == np.sign(blue[0] - blue[1])


def test_a_folder_of_data_sets_is_searched_for_the_one_that_is_asked_for(tmp_path, mnist):
    wanted = load("mnist", folder=mnist)
    files = [file for file in mnist.iterdir() if "idx" in file.name]
    for place in ("own/mnist", "peers/MNIST/raw", "own/fashion-mnist"):
        (tmp_path / place).mkdir(parents=True)
        for file in files:
            shutil.copy(file, tmp_path / place)
    (tmp_path / "own" / "cifar10").mkdir()
    write_cifar(tmp_path / "own" / "cifar10", "bin")
    other = tmp_path / "own" / "fashion-mnist" / "t10k-labels-idx1-ubyte"
    other.write_bytes(idx_bytes(np.zeros(12, np.uint8)))
    assert load("mnist", folder=tmp_path / "own").fingerprint == wanted.fingerprint
    assert load("mnist", folder=tmp_path / "peers").fingerprint == wanted.fingerprint
    assert load("fashion-mnist", folder=tmp_path / "own").test_targets.tolist() == [0] * 12
    whole = load("cifar10", folder=tmp_path / "own" / "cifar10")
    assert load("cifar10", folder=tmp_path / "own").fingerprint == whole.fingerprint
    with pytest.raises(DataError, match=r"but it holds MNIST$"):
        load("fashion-mnist", folder=tmp_path / "peers")


def test_a_pickle_that_would_run_code_is_not_run(tmp_path):
    write_cifar(tmp_path, "py")
    marker = tmp_path / "was-run"

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    (tmp_path / "cifar-10-batches-py" / "data_batch_2").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(DataError, match="it was not run"):
        load("cifar10", folder=tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_published_files(name):
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is not there")
    data = load(name, folder=SHARED / name)
    assert (data.train_inputs.shape, len(data.test_targets)) == ((60000, 1, 28, 28), 10000)
    assert torch.bincount(data.test_targets).tolist() == (
        [1000] * 10 if name == "fashion-mnist" else [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    )


@pytest.mark.slow
def test_the_published_cifar10(tmp_path):
    script = SHARED / "unpack_cifar10.py"
    if not script.is_file():
        pytest.skip(f"{script} is not there")
    pytest.importorskip("PIL")
    subprocess.run([sys.executable, str(script), str(tmp_path)], check=True, capture_output=True)
    data = load("cifar10", folder=tmp_path)
    assert data.train_inputs.shape == (50000, 3, 32, 32)
    assert torch.bincount(data.test_targets).tolist() == [1000] * 10


def test_missing_and_damaged_files_are_one_line(tmp_path, mnist):
    with pytest.raises(DataError, match="there is no such folder"):
        load("fashion-mnist", folder=tmp_path / "nowhere")
    with pytest.raises(DataError, match="found neither"):
        load("cifar10", folder=tmp_path)
    with pytest.raises(DataError, match="data must be one of digits, mnist"):
        load("imagenet")
    with pytest.raises(DataError, match="there is none"):
        load(str(tmp_path / "none.npz"))
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"must be a whole \.npz file"):
        load(str(tmp_path / "bad.npz"))
    packed = mnist / "train-images-idx3-ubyte.gz"
    packed.write_bytes(packed.read_bytes()[:200])
    with pytest.raises(DataError, match="must be a whole gzip file"):
        load("mnist", folder=mnist)
    packed.write_bytes(gzip.compress(b"\0\0\x08\x03" + struct.pack(">III", 5, 28, 28) + b"short"))
    with pytest.raises(DataError, match="must hold 5×28×28 bytes"):
        load("mnist", folder=mnist)
    packed.write_bytes(gzip.compress(b"<html>"))
    with pytest.raises(DataError, match="must be an idx file"):
        load("mnist", folder=mnist)


def test_without_a_network_the_way_out_is_named(monkeypatch):
    import pooch

    def fail(*args, **settings):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", fail)
    with pytest.raises(DataError, match=r"could not be fetched .*no route to host.*give its folder"):
        load("mnist")


def test_what_is_fetched_lies_under_its_published_name(monkeypatch, tmp_path):
    """Archives are unpacked beside themselves, and found again the next time."""
    import pooch

    def retrieve(url, known_hash, *, fname, path):
        assert known_hash.startswith("md5:")
        (path / fname).parent.mkdir(parents=True)
        (path / fname).write_text(url)
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    file = _fetched("https://example.org/1", "0" * 32, "cifar10/batches.tar.gz")
    assert file == tmp_path / "isthmus" / "cifar10" / "batches.tar.gz"
    assert file.read_text() == "https://example.org/1"


def test_importing_is_light():
    code = (
        "import sys, isthmus.zoo; print([m for m in ('sklearn', 'torchvision', 'pooch', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_data_keep_their_kind():
    data = Data(
        torch.zeros(4, 2), torch.zeros(4, dtype=torch.long), torch.zeros(2, 2), torch.zeros(2, dtype=torch.long), 1
    )
    assert len(data.limited(3).train_targets) == 3
    with pytest.raises(DataError, match="at least 1 example"):
        data.limited(0)


def test_images_whose_channels_come_last_are_refused():
    pixels, labels = np.zeros((20, 8, 8, 3), np.uint8), np.arange(20) % 10
    with pytest.raises(DataError, match="move the last axis"):
        images(pixels, labels, pixels, labels, classes=10, name="mine")
    turned = np.moveaxis(pixels, 3, 1)
    assert images(turned, labels, turned, labels, classes=10, name="mine").shape == (3, 8, 8)
