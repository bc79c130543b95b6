"""The index: says what the folders say, finds, orders and pages, and is never what a result depends on."""

import sqlite3

import pytest
import torch

from isthmus.core.errors import SettingError
from isthmus.studies import Row, Store, Trained
from isthmus.studies.store.index import counts, index_of, listing, refresh, search
from isthmus.studies.store.query import Query


def trained(number, **recipe):
    rows = (
        Row("score", 1, {}, {"test_error": number / 100}, "share"),
        Row("barrier", 1, {"other": "f" * 64}, {"error_barrier": 9.0}, "share"),
    )
    fields = {"network": "mlp-64x2" if number % 2 else "ResNet", "rate": number / 10, "settings": {"width": number}}
    made = {"status": "stopped", "created": f"2026-01-{number + 1:02d}T00:00:00+00:00", "seconds": number % 3}
    return Trained(f"{number:064x}", {**fields, **recipe}, {"final": {"w": torch.zeros(1)}}, rows, made)


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    for number in range(7):
        store.add([trained(number, **({"data": "digits"} if number else {}))])
    return store


def found(store, words="", **query):
    refresh(store)
    return [int(run.key, 16) for run in search(index_of(store), Query(words=words, **query)).runs]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("", [0, 1, 2, 3, 4, 5, 6]),
        ("mlp", [1, 3, 5]),
        ("MLP stopped", [1, 3, 5]),
        ("mlp nothing", []),
        ("network=resnet", [0, 2, 4, 6]),
        ("network!=resnet", [1, 3, 5]),
        ("rate>=0.4", [4, 5, 6]),
        ("rate<0.2 settings.width>0", [1]),
        ("test_error<=0.02", [0, 1, 2]),
        ("error_barrier>0", []),  # of a pair, not of the run alone
        ("data=digits", [1, 2, 3, 4, 5, 6]),
        ("data!=digits", [0]),
        ("status=stopped", [0, 1, 2, 3, 4, 5, 6]),
        ("rate>abc", []),
        ("barrier", [0, 1, 2, 3, 4, 5, 6]),
        ("'; drop table runs; --", []),
        ("rate='1'or'1'='1'", []),
        ("%", []),
    ],
)
def test_what_is_looked_for_is_found(store, words, wanted):
    assert found(store, words) == wanted
    assert len(listing(store)) == 7


def test_pages_follow_each_other_in_every_order(store):
    for order in ("created", "status", "seconds", "rows", "key", "rate", "test_error", "no-such-field", 'a"b'):
        for descending in (False, True):
            whole = found(store, order=order, descending=descending)
            parts = [
                one
                for o in range(0, 7, 2)
                for one in found(store, order=order, descending=descending, offset=o, limit=2)
            ]
            assert parts == whole
            assert sorted(whole) == list(range(7))
    assert found(store, order="rate", descending=True) == [6, 5, 4, 3, 2, 1, 0]
    assert found(store, order="seconds") == [0, 3, 6, 1, 4, 2, 5]


def test_runs_without_a_value_come_last_in_either_direction(store):
    store.add([trained(9, depth=3), trained(8, depth=2)][:1])
    store.add([trained(8, depth=2)])
    assert found(store, order="depth")[:2] == [8, 9]
    assert found(store, order="depth", descending=True)[:2] == [9, 8]


def test_only_some_keys(store):
    refresh(store)
    some = search(index_of(store), Query(words="rate>0.2", keys=[f"{n:064x}" for n in (1, 3, 5)], limit=1))
    assert [int(run.key, 16) for run in some.runs] == [3]
    assert some.total == 2
    assert counts(index_of(store), "network") == {"ResNet": 4, "mlp-64x2": 3}


def test_the_index_follows_the_folders(store):
    assert refresh(store) == 7
    assert refresh(store) == 0
    store.record(f"{3:064x}", [Row("flatness", 1, {}, {"trace": 5.0}, "nats")])
    assert refresh(store) == 1
    assert found(store, "trace>4") == [3]
    (store.folder(f"{2:064x}") / "recipe.json").write_text("{")
    store.record(f"{2:064x}", [Row("flatness", 1, {}, {"trace": 1.0}, "nats")])
    assert found(store, "status=damaged") == [2]


@pytest.mark.parametrize("damage", ["garbage", "missing", "old"])
def test_a_lost_index_is_made_anew(store, damage):
    refresh(store)
    file = index_of(store)
    if damage == "missing":
        file.unlink()
    elif damage == "garbage":
        file.write_bytes(b"no database" * 100)
    else:
        with sqlite3.connect(file) as database:
            database.execute("pragma user_version = 1")
        database.close()
    assert len(found(store)) == 7


def test_a_store_that_is_not_written_has_its_index_elsewhere(store, tmp_path):
    file = tmp_path / "elsewhere.sqlite"
    assert refresh(store, file=file) == 7
    assert search(file, Query()).total == 7
    assert not index_of(store).exists()


def test_negative_pages_are_refused(store):
    refresh(store)
    with pytest.raises(SettingError, match="must not be negative, got -1 and 5"):
        search(index_of(store), Query(offset=-1, limit=5))
