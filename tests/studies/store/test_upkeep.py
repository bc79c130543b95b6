"""Verifying, cleaning and indexing a store."""

import json
import os
import shutil
import time

import pytest
import torch

from isthmus.studies import Row, Store, Trained, collect, unused, verify
from isthmus.studies.factors.jobs import key_of, recipe_of
from isthmus.studies.store.index import listing, refresh
from isthmus.train import Recipe
from isthmus.train.recipe import SCHEMA


def trained(seed):
    recipe = Recipe(order_seed=seed)
    weights = {"w": torch.full((50,), float(seed))}
    stored = {"schema": SCHEMA, **recipe.to_dict()}
    rows = (Row("score", 1, {}, {"loss": 0.5}, "nats"),)
    return Trained(recipe.key(), stored, {"final": weights}, rows, {"status": "stopped", "created": f"2026-01-0{seed}"})


@pytest.fixture
def store(tmp_path):
    made = Store.open(tmp_path / "store", create=True)
    made.add([trained(seed) for seed in (1, 2, 3)])
    made.add([trained(4)])
    return made


def test_the_stored_recipe_has_the_recipe_s_own_key():
    recipe = Recipe(settings={"width": 3}, augmentation=("crop",), checkpoints=(1, 2))
    stored = json.loads(json.dumps({"schema": SCHEMA, **recipe.to_dict()}))
    assert key_of(stored) == recipe.key()
    assert recipe_of(stored) == recipe


def test_a_sound_store_verifies(store):
    found = verify(store)
    assert (found.runs, found.groups, found.rows, found.sound) == (4, 1, 4, True)


@pytest.mark.parametrize("file", ["groups/*/weights.safetensors", "runs/*/weights.safetensors"])
def test_one_changed_byte_of_weights_is_found(store, file):
    path = next(store.path.glob(file))
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    assert len(verify(store).damaged) == 1


def test_a_changed_recipe_is_found(store):
    path = store.folder(trained(1).key) / "recipe.json"
    changed = {**json.loads(path.read_text()), "rate": 0.25}
    path.write_text(json.dumps(changed))
    assert list(verify(store).damaged) == [trained(1).key]


@pytest.mark.parametrize("name", ["recipe.json", "weights.json", "provenance.json"])
def test_a_cut_file_is_found(store, name):
    path = store.folder(trained(2).key) / name
    path.write_text(path.read_text()[:10])
    assert list(verify(store).damaged) == [trained(2).key]


def test_cleaning_leaves_what_is_read_and_what_is_being_written(store):
    old, young = store.path / "runs" / ".old.x.part", store.path / "runs" / ".young.x.part"
    for folder in (old, young):
        folder.mkdir()
        (folder / "half").write_text("x")
    hour_ago = time.time() - 4000
    for path in (old / "half", old):
        os.utime(path, (hour_ago, hour_ago))
    assert collect(store, remove=False).leftovers == 1
    assert old.exists()
    found = collect(store)
    assert (found.leftovers, found.groups, found.runs) == (1, 0, 0)
    assert not old.exists()
    assert young.exists()
    assert verify(store).sound


def test_a_group_goes_with_the_last_run_that_reads_it(store):
    first, rest = trained(1).key, (trained(2).key, trained(3).key)
    assert collect(store, runs=(first,)).groups == 0
    assert torch.equal(store.weights(rest[0])["w"], torch.full((50,), 2.0))
    planned = collect(store, runs=rest, remove=False)
    assert (planned.runs, planned.groups, planned.removed) == (2, 1, False)
    assert collect(store, runs=rest).groups == 1
    assert Store.open(store.path).keys == [trained(4).key]


def test_runs_of_no_study_are_unused(store):
    store.remember_study("s", {"keys": [trained(1).key, trained(4).key]})
    assert set(unused(store)) == {trained(2).key, trained(3).key}


def test_the_index_follows_the_folders(store):
    assert [entry.key for entry in listing(store)] == [trained(seed).key for seed in (1, 2, 3, 4)]
    assert refresh(store) == 0
    store.record(trained(2).key, [Row("overlap", 1, {"other": "x"}, 0.5, "")])
    assert refresh(store) == 1
    assert [entry.rows for entry in listing(store)] == [1, 2, 1, 1]
    collect(store, runs=(trained(4).key,))
    assert len(listing(store)) == 3


@pytest.mark.parametrize("damage", ["missing", "rubbish", "empty", "other version"])
def test_the_index_is_rebuilt_from_the_folders_at_any_time(store, damage):
    import contextlib
    import sqlite3

    before = listing(store)
    path = store.path / "index.sqlite"
    if damage == "missing":
        path.unlink()
    elif damage == "rubbish":
        path.write_bytes(b"not a database" * 100)
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute("pragma user_version = 99")
            database.execute("drop table runs")
            database.commit()
    assert listing(store) == before
    assert not list(store.path.glob("index.sqlite-*"))


def test_a_store_that_cannot_be_written_is_listed_all_the_same(store, monkeypatch):
    from isthmus.core.errors import IsthmusError
    from isthmus.studies.store import index

    before = listing(store)
    store.record(trained(2).key, [Row("overlap", 1, {}, 0.5, "")])

    atomic = index.atomic

    def refused(path):
        if path == index.index_of(store):
            raise IsthmusError(f"{path} must be writable")
        return atomic(path)

    monkeypatch.setattr(index, "atomic", refused)
    assert [entry.rows for entry in listing(store)] == [1, 2, 1, 1]
    assert [entry.key for entry in listing(store)] == [entry.key for entry in before]


def test_a_full_disk_is_listed_verified_and_cleaned(store, monkeypatch):
    """Cleaning is what a full disk needs; a group that waits for space to be completed is not taken for unread."""
    import errno
    import sqlite3
    from pathlib import Path

    from isthmus.studies.store import index

    (store.group_folder(store.groups()[0]) / "complete").unlink()
    doomed = [trained(seed).key for seed in (1, 2, 3)]
    for key in doomed:
        shutil.rmtree(store.folder(key))
    leftover = store.path / "runs" / ".old.x.part"
    leftover.write_text("x")
    os.utime(leftover, (time.time() - 4000,) * 2)

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lay_out(database):
        raise sqlite3.OperationalError("database or disk is full")

    laid, calls = index._lay_out, []
    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(
        index, "_lay_out", lambda database: (calls.append(1), (lay_out if len(calls) == 1 else laid)(database))
    )
    again = Store.open(store.path)
    assert again.keys == [trained(4).key]
    assert [entry.key for entry in listing(again)] == [trained(4).key]
    assert verify(again).sound
    found = collect(again)
    assert (found.leftovers, found.groups) == (1, 0)
    monkeypatch.undo()
    assert len(Store.open(store.path).keys) == 4
