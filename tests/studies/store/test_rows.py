"""The file of measured values survives torn lines, full disks and several writers."""

import errno
import math
import os
import threading

import pytest

from isthmus.core.errors import IsthmusError
from isthmus.studies.store import rows
from isthmus.studies.store.rows import Row, append_rows, read_rows


def row(measure="barrier", value=1.0, **settings):
    return Row(measure, 1, settings, value, "nats")


def test_what_is_written_is_read_back_bit_for_bit(tmp_path):
    path = tmp_path / "measures.jsonl"
    written = [row("a", 0.1 + 0.2), row("b", {"loss": [1e-300, -0.0, 3]}), row("c", None, other="x")]
    append_rows(path, written[:1])
    append_rows(path, written[1:])
    assert read_rows(path) == written
    assert math.copysign(1, read_rows(path)[1].value["loss"][1]) == -1


def test_values_that_are_not_finite_become_none(tmp_path):
    append_rows(tmp_path / "m.jsonl", [row(value=math.nan)])
    assert read_rows(tmp_path / "m.jsonl")[0].value is None


def test_of_equal_identity_the_last_counts_and_settings_tell_rows_apart(tmp_path):
    path = tmp_path / "m.jsonl"
    append_rows(path, [row(value=1.0, points=5), row(value=2.0, points=7), row(value=3.0, points=5)])
    assert [r.value for r in read_rows(path)] == [3.0, 2.0]


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_torn_last_line_is_ignored_and_then_repaired(tmp_path, cut):
    path = tmp_path / "m.jsonl"
    append_rows(path, [row("first"), row("second")])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert [r.measure for r in read_rows(path)] == ["first"]
    append_rows(path, [row("third")])
    assert [r.measure for r in read_rows(path)] == ["first", "third"]


def test_a_torn_line_longer_than_a_block_is_repaired(tmp_path):
    path = tmp_path / "m.jsonl"
    append_rows(path, [row("first")])
    with path.open("ab") as stream:
        stream.write(b"x" * 10_000)
    append_rows(path, [row("second")])
    assert [r.measure for r in read_rows(path)] == ["first", "second"]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "m.jsonl"
    append_rows(path, [row("first")])
    with path.open("ab") as stream:
        stream.write(b"nonsense\n")
    append_rows(path, [row("second")])
    with pytest.raises(IsthmusError, match=r"line 2 is damaged"):
        read_rows(path)


def test_a_full_disk_takes_back_what_was_half_written(tmp_path, monkeypatch):
    path = tmp_path / "m.jsonl"
    append_rows(path, [row("first")])
    before = path.read_bytes()
    write = os.pwrite

    def half(descriptor, content, offset):
        if offset > len(before):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content[: len(content) // 2], offset)

    monkeypatch.setattr(rows.os, "pwrite", half)
    with pytest.raises(IsthmusError, match="no space left on device") as caught:
        append_rows(path, [row("second")])
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_many_writers_lose_nothing(tmp_path):
    path = tmp_path / "m.jsonl"

    def write(writer):
        for number in range(20):
            append_rows(path, [row("m", number, writer=writer, number=number)])

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {(r.settings["writer"], r.settings["number"]) for r in read_rows(path)} == {
        (writer, number) for writer in range(4) for number in range(20)
    }
