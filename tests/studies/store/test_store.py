"""The store: what goes in comes out, whole or not at all, for one network, for groups, and beside other processes."""

import errno
import json
import os
import resource
from pathlib import Path

import pytest
import torch

from isthmus.core.errors import IsthmusError
from isthmus.studies import Row, Store, StoreError, Trained
from isthmus.studies.store import store as store_module


def network(seed, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return {
        "up.weight": torch.randn(5, 3, generator=generator).to(dtype),
        "up.bias": torch.randn(5, generator=generator).to(dtype),
        "scale": torch.randn((), generator=generator).to(dtype),
        "steps": torch.tensor(seed),
    }


def trained(seed, **changes):
    settings = {"key": f"{seed:064x}", "recipe": {"schema": 1, "seed": seed}, "moments": {"final": network(seed)}}
    rows = (Row("score", 1, {}, {"loss": seed / 3}, "nats"),)
    return Trained(**{**settings, "rows": rows, "provenance": {"status": "stopped"}, **changes})


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store", create=True)


def equal(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(t, second[n]) and t.dtype == second[n].dtype and t.shape == second[n].shape
        for n, t in first.items()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [1, 4])
def test_networks_come_back_bit_for_bit(store, count, dtype):
    members = [trained(seed, moments={"final": network(seed, dtype)}) for seed in range(count)]
    store.add(members)
    for seed, member in enumerate(members):
        assert equal(store.weights(member.key), network(seed, dtype))
        run = store.run(member.key)
        assert run.recipe == {"schema": 1, "seed": seed}
        assert run.rows == member.rows
    assert store.keys == [member.key for member in members]


def test_a_group_shares_one_stacked_file(store):
    store.add([trained(seed) for seed in range(8)])
    assert len(list(store.path.glob("groups/*/weights.safetensors"))) == 1
    assert not list(store.path.glob("runs/*/weights.safetensors"))


def test_a_stacked_file_says_what_its_slices_are(store):
    from safetensors import safe_open

    from isthmus.core.history import KEY, read_lineage

    store.add([trained(seed, provenance={"data": "f" * 64, "created": "today"}) for seed in range(3)])
    (file,) = store.path.glob("groups/*/weights.safetensors")
    with safe_open(file, framework="pt") as handle:
        about = read_lineage(handle.metadata()[KEY])
    assert about is not None
    assert about.recipe == {"schema": 1, "seed": "[0, 1, 2]", "moment": "final"}
    assert (about.data, about.created, about.made_by) == ("f" * 64, "today", "isthmus study")


def test_moments_and_masks_are_kept_beside_the_end(store):
    def with_moments(seed):
        mask = {"up.weight": network(seed)["up.weight"] > 0}
        return trained(seed, moments={"step-3": network(seed + 100), "mask": mask, "final": network(seed)})

    store.add([with_moments(seed) for seed in range(3)])
    key = trained(2).key
    assert store.moments(key) == ["mask", "step-3", "final"]
    assert equal(store.weights(key, moment="step-3"), network(102))
    assert store.weights(key, moment="mask")["up.weight"].dtype == torch.bool
    with pytest.raises(StoreError, match=r"moment must be one of .*step-3.* got 'step-4'"):
        store.weights(key, moment="step-4")


def test_members_of_different_shapes_are_kept_each_alone(store):
    other = trained(1, moments={"final": {"w": torch.ones(2)}})
    store.add([trained(0), other])
    assert not store.groups()
    assert equal(store.weights(other.key), {"w": torch.ones(2)})


def test_a_run_that_is_there_stays_as_it_is(store):
    store.add([trained(0)])
    store.record(trained(0).key, [Row("more", 1, {}, 1.0, "")])
    store.add([trained(0, rows=()), trained(1)])
    assert [row.measure for row in store.rows(trained(0).key)] == ["score", "more"]
    assert equal(store.weights(trained(1).key), network(1))


def test_a_group_whose_process_died_before_its_runs_is_completed_by_the_next(store, monkeypatch):
    write = store_module.write_run
    left = [2]

    def killed(*arguments):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(*arguments)

    monkeypatch.setattr(store_module, "write_run", killed)
    with pytest.raises(KeyboardInterrupt):
        store.add([trained(seed) for seed in range(4)])
    assert len(store.keys) == 2
    monkeypatch.undo()
    again = Store.open(store.path)
    assert [equal(again.weights(trained(seed).key), network(seed)) for seed in range(4)] == [True] * 4
    assert again.run(trained(3).key).rows == trained(3).rows


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("at", range(0, 12, 2))
def test_a_full_disk_leaves_nothing_half_written(store, monkeypatch, count, at):
    """Whichever small file is the one that no longer fits: one line, and each run is whole or absent."""
    write, left = Path.write_text, [at]

    def full(self, *arguments, **keywords):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "write_text", full)
    said = ""
    try:
        store.add([trained(seed) for seed in range(count)])
    except IsthmusError as problem:
        said = str(problem)
    monkeypatch.undo()
    # An alone network has three small files; a group of three has one, three for each run and a mark at the end.
    fits = at >= (3 if count == 1 else 11)
    assert fits == (said == "")
    assert fits or ("no space left on device" in said and "\n" not in said)
    assert not list(store.path.rglob("*.part"))
    for key in store.keys:
        assert store.run(key).rows
    Store.open(store.path).add([trained(seed) for seed in range(count)])
    assert [equal(store.weights(trained(seed).key), network(seed)) for seed in range(count)] == [True] * count


@pytest.mark.parametrize("count", [1, 2])
def test_weights_that_do_not_fit_on_the_disk_are_refused_in_one_line(store, count):
    """A real limit of the system on the size of files stands in for the disk."""
    big = [trained(seed, moments={"final": {"w": torch.ones(100_000)}}) for seed in range(count)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(IsthmusError, match="must be writable") as caught:
            store.add(big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert store.keys == []
    assert not list(store.path.rglob("*.part"))


@pytest.mark.parametrize(("version", "remedy"), [(2, "upgrade isthmus"), (0, "use the isthmus that made it")])
def test_another_version_is_refused_with_what_to_do(store, version, remedy):
    (store.path / "store.json").write_text(json.dumps({"isthmus store": version}))
    with pytest.raises(StoreError, match=rf"must be of version 1, got {version}; {remedy}"):
        Store.open(store.path)


def test_other_content_is_not_taken_for_a_store(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match="other content"):
        Store.open(tmp_path, create=True)
    with pytest.raises(StoreError, match="there is none"):
        Store.open(tmp_path / "nowhere")


def test_keys_are_found_by_their_start(store):
    store.add([trained(seed) for seed in (1, 2)])
    assert store.find("0" * 63 + "2") == trained(2).key
    with pytest.raises(StoreError, match="2 match"):
        store.find("000")
    with pytest.raises(StoreError, match="none match"):
        store.find("f")


def test_a_claim_is_held_by_one(store):
    with store.claim("work") as first, store.claim("work") as second, store.claim("other") as third:
        assert (first, second, third) == (True, False, True)
    with store.claim("work") as again:
        assert again
