"""Streams: every example where it belongs, images moved as said, disjoint labels seen."""

import dataclasses
import types

import pytest
import torch

from isthmus.core.errors import DataError, SettingError
from isthmus.core.randomness import child
from isthmus.zoo.cues import Cue
from isthmus.zoo.data import Data
from isthmus.zoo.streams import STREAMS, Stream, from_avalanche, permuted, rotated, split, stream, with_cues


def images(classes=5, examples=50, channels=2, height=6, width=6):
    generator = child(0, "images")
    parts = [
        part
        for _ in range(2)
        for part in (
            torch.randn(examples, channels, height, width, generator=generator),
            torch.arange(examples) % classes,
        )
    ]
    return Data(*parts, classes=classes, name="random")


def test_split_puts_every_example_into_one_task():
    data = images()
    found = split(data, 2)
    assert found.labels == ((0, 1), (2, 3, 4))
    assert found.disjoint
    assert sum(len(task.train_targets) for task in found.tasks) == 50
    for task, labels in zip(found.tasks, found.labels, strict=True):
        chosen = torch.isin(data.test_targets, torch.tensor(labels))
        assert torch.equal(task.test_inputs, data.test_inputs[chosen])
        assert torch.equal(task.test_targets, data.test_targets[chosen])
        assert task.classes == 5


def test_domains_share_their_labels():
    found = split(images(), 2, scenario="domain")
    assert found.labels == ((0, 1), (0, 1, 2))
    assert not found.disjoint
    assert {task.classes for task in found.tasks} == {3}


def test_permutations_move_whole_pixels_and_differ():
    data = images()
    found = permuted(data, 3)
    assert found.tasks[0] is data
    pixels = [task.train_inputs.flatten(2) for task in found.tasks]
    for moved in pixels[1:]:
        # One order for all: the first image's order, found by matching its values, explains all images and channels.
        order = (moved[0, 0][:, None] - pixels[0][0, 0][None]).abs().argmin(1)
        assert sorted(order.tolist()) == list(range(36))
        assert torch.equal(moved, pixels[0][..., order])
    assert not torch.equal(pixels[1], pixels[2])
    assert torch.equal(permuted(data, 3).tasks[2].train_inputs, found.tasks[2].train_inputs)
    flat = dataclasses.replace(data, train_inputs=data.train_inputs.flatten(1), test_inputs=data.test_inputs.flatten(1))
    assert permuted(flat, 2).tasks[1].train_inputs.shape == (50, 72)


def test_right_angles_are_exact_turns():
    data = images()
    found = rotated(data, 3, most=180)
    assert found.names == ("0°", "90°", "180°")
    torch.testing.assert_close(
        found.tasks[1].train_inputs, torch.rot90(data.train_inputs, 1, (2, 3)), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        found.tasks[2].train_inputs, torch.rot90(data.train_inputs, 2, (2, 3)), atol=1e-5, rtol=0
    )


def test_images_that_are_not_square_are_turned_without_stretching():
    wide = images(width=11, height=7)
    dot = torch.zeros_like(wide.train_inputs)
    dot[:, :, 3, 7] = 1.0  # two pixels to the right of the centre
    turned = rotated(dataclasses.replace(wide, train_inputs=dot), 2).tasks[1].train_inputs
    assert divmod(int(turned[0, 0].argmax()), 11) == (1, 5)  # two pixels above it


def test_cues_are_tasks():
    found = with_cues(images(channels=3, height=8, width=8), [Cue("colour"), Cue("noise")])
    assert found.names == ("colour cue", "noise cue")
    assert not found.disjoint


@pytest.mark.parametrize("kind", STREAMS)
def test_every_kind_by_its_name(kind):
    found = stream(kind, images(channels=3, height=8, width=8), 2, cues=[Cue("noise"), Cue("texture")])
    assert len(found.tasks) == len(found.names) == 2
    assert found.scenario == ("class" if kind == "split" else "domain")


def experience(inputs, targets):
    items = [(x, int(y), 0) for x, y in zip(inputs, targets, strict=True)]
    return types.SimpleNamespace(dataset=items)


def test_benchmarks_of_experiences():
    data = images()
    found = split(data, 2)
    benchmark = types.SimpleNamespace(
        train_stream=[experience(task.train_inputs, task.train_targets) for task in found.tasks],
        test_stream=[experience(task.test_inputs, task.test_targets) for task in found.tasks],
    )
    read = from_avalanche(benchmark)
    assert read.scenario == "class"
    assert read.labels == found.labels
    assert torch.equal(read.tasks[1].test_inputs, found.tasks[1].test_inputs)
    benchmark.test_stream = [experience(data.test_inputs, data.test_targets)]
    assert len(from_avalanche(benchmark).tasks[0].test_targets) == 50
    by_name = types.SimpleNamespace(streams={"train": benchmark.train_stream, "test": benchmark.test_stream})
    assert torch.equal(from_avalanche(by_name).tasks[1].train_inputs, found.tasks[1].train_inputs)
    with pytest.raises(DataError, match="train_stream"):
        from_avalanche(object())
    with pytest.raises(DataError, match="dataset of"):
        from_avalanche(types.SimpleNamespace(train_stream=[object()] * 2, test_stream=[object()]))


def test_benchmarks_of_avalanche_itself():
    """The library's own objects, where it can be imported; it needs a torchvision that fits torch, and more."""
    try:
        from avalanche.benchmarks import benchmark_from_datasets
        from avalanche.benchmarks.utils import as_classification_dataset
    except Exception as problem:  # whatever its many requirements raise
        pytest.skip(f"avalanche-lib cannot be imported here: {type(problem).__name__}: {str(problem)[:100]}")
    found = split(images(), 2)
    parts = {
        part: [
            as_classification_dataset(
                torch.utils.data.TensorDataset(getattr(task, f"{part}_inputs"), getattr(task, f"{part}_targets")),
                target_labels=getattr(task, f"{part}_targets").tolist(),
            )
            for task in found.tasks
        ]
        for part in ("train", "test")
    }
    read = from_avalanche(benchmark_from_datasets(**parts))
    assert read.labels == found.labels
    assert torch.equal(read.tasks[1].test_inputs, found.tasks[1].test_inputs)


def test_a_stream_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from types import SimpleNamespace as Any\nimport torch\nfrom isthmus.zoo import load_data\n"
        "from isthmus.zoo.streams import permuted\n\n\n"
        "def stream():\n    return permuted(load_data('digits').limited(30), 2)\n\n\n"
        "def benchmark():\n"
        "    parts = [Any(dataset=[(torch.ones(1, 4, 4) * k, c, 0) for c in (0, 1)]) for k in range(3)]\n"
        "    return Any(train_stream=parts, test_stream=parts)\n\n\n"
        "def nothing():\n    return 3\n"
    )
    data = images()
    assert stream(f"{file}:stream", data, 9).names == ("in order", "permutation 1")
    read = stream(f"{file}:benchmark", data, 9)
    assert len(read.tasks) == 3
    assert read.scenario == "domain"
    with pytest.raises(DataError, match="must have a train_stream"):
        stream(f"{file}:nothing", data, 2)
    with pytest.raises(SettingError, match="no function other"):
        stream(f"{file}:other", data, 2)


def test_what_is_no_stream():
    data = images()
    with pytest.raises(SettingError, match="leave 2 classes for each"):
        split(data, 3)
    with pytest.raises(SettingError, match="did you mean permuted"):
        stream("permutation", data, 2)
    with pytest.raises(SettingError, match="at least 2"):
        permuted(data, 1)
    with pytest.raises(DataError, match="one shape"):
        Stream((data, images(height=7)), ("a", "b"), "domain")
    with pytest.raises(DataError, match="have none"):
        split(dataclasses.replace(data, test_targets=torch.zeros_like(data.test_targets)), 2)


def test_a_stream_is_disjoint_if_any_two_tasks_share_no_label():
    one, two, three = (
        dataclasses.replace(images(), train_targets=torch.tensor(labels).repeat(25))
        for labels in ([0, 1], [1, 2], [3, 4])
    )
    assert Stream((one, two, three), ("a", "b", "c"), "class").disjoint
    assert not Stream((one, two), ("a", "b"), "class").disjoint
