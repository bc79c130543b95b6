"""What a running study tells of itself: rarely, whole, and never at the price of the study."""

import time

from isthmus.studies import Store
from isthmus.studies.store import progress
from isthmus.studies.store.progress import Teller, heard


def test_what_is_told_is_heard(tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    assert heard(store) == {}
    teller = Teller(store, "width")
    teller.say(3, 10, "cell")
    told = heard(store)["width"]
    assert (told.done, told.total, told.label, told.over) == (3, 10, "cell", False)
    assert told.running()
    assert not told.running(told.at + 3600)  # a killed process tells nothing more
    teller.close()
    assert not heard(store)["width"].running()


def test_it_is_told_at_most_once_a_second(tmp_path, monkeypatch):
    store = Store.open(tmp_path / "store", create=True)
    now = time.time()
    monkeypatch.setattr(progress.time, "time", lambda: now)
    teller = Teller(store, "width")
    teller.say(1, 10)
    teller.say(2, 10)
    assert heard(store)["width"].done == 1
    now += 1.5
    teller.say(3, 10)
    assert heard(store)["width"].done == 3
    teller.close()
    assert heard(store)["width"].over


def test_a_store_that_takes_no_words_stops_no_study(tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    (store.path / "progress").write_text("in the way")
    teller = Teller(store, "width")
    teller.say(1, 2)
    teller.close()
    assert heard(store) == {}


def test_what_cannot_be_read_is_left_out(tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    Teller(store, "good").say(1, 2)
    (store.path / "progress" / "bad.json").write_text("{")
    (store.path / "progress" / "other.json").write_text('{"unknown": 1}')
    assert list(heard(store)) == ["good"]
