"""Randomness, files, records, errors, statuses, operators, provenance and the plain parts of statistics."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from isthmus.core import files
from isthmus.core.errors import CheckpointError, IsthmusError, SettingError, listed
from isthmus.core.operator import Operator
from isthmus.core.progress import silent, within
from isthmus.core.provenance import provenance
from isthmus.core.randomness import child, child_seed
from isthmus.core.record import Record, plain, to_json
from isthmus.core.statistics import Interval, over_networks, over_pairs, student_quantile
from isthmus.core.status import Status


def test_seeds_are_derived_by_names_and_never_collide_by_arithmetic():
    seeds = {
        child_seed(seed, name, number) for seed in range(20) for name in ("order", "noise") for number in range(20)
    }
    assert len(seeds) == 800
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert child_seed(1, 2) != child_seed(2, 1)
    assert child_seed(0, "1") != child_seed(0, 1)
    assert child_seed(0, "a", "b") != child_seed(0, "ab")
    assert child_seed(0, "a b") != child_seed(0, "a", "b")
    # The very numbers: stores made today must be found tomorrow.
    assert child_seed(0, "order") == 4596127315142197647
    assert child_seed(7, "noise", 3) == 290156495531400975


def test_streams_are_their_own():
    before = torch.get_rng_state()
    first, again = (torch.rand(4, generator=child(3, "a")) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, torch.rand(4, generator=child(3, "b")))
    assert torch.equal(before, torch.get_rng_state())


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "new" / "file.txt"
    files.write_text(target, "Ünïcode")
    assert target.read_text(encoding="utf-8") == "Ünïcode"

    def stop_half_way():
        with files.atomic(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_half_way()
    assert target.read_text(encoding="utf-8") == "Ünïcode"
    assert [entry.name for entry in target.parent.iterdir()] == ["file.txt"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "folder"
    with files.atomic_folder(target) as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep" / "a").write_text("a")
        assert not target.exists()
    assert (target / "deep" / "a").read_text() == "a"
    with pytest.raises(RuntimeError, match="stop"), files.atomic_folder(tmp_path / "other"):
        raise RuntimeError("stop")
    with pytest.raises(IsthmusError, match="must be writable"), files.atomic_folder(target) as temporary:
        (temporary / "b").write_text("b")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(IsthmusError, match=r"must be writable, but: .*choose another output") as caught:
        files.write_text(tmp_path / "file" / "below", "x")
    assert "\n" not in str(caught.value)


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass(frozen=True)
class Inner(Record):
    values: torch.Tensor
    hidden: int = dataclasses.field(default=1, metadata={"record": False})


@dataclasses.dataclass(frozen=True)
class Outer(Record):
    inner: Inner
    pairs: dict
    others: tuple


def test_records_become_plain():
    outer = Outer(
        Inner(torch.tensor([1.0, math.nan], requires_grad=True)),
        {(0, 1): np.float32(0.5), "big": {"w": torch.zeros(200_000)}},
        (Colour.RED, Path("/a"), torch.float16, torch.device("cpu"), {1}, None, True, math.inf, np.arange(2)),
    )
    found = outer.to_dict()
    assert found["kind"] == "Outer"
    assert found["inner"] == {"kind": "Inner", "values": [1.0, None]}
    assert found["pairs"] == {"(0, 1)": 0.5, "big": "<1 tensors, 200000 entries>"}
    assert found["others"] == ["red", "/a", "torch.float16", "cpu", [1], None, True, None, [0, 1]]
    assert json.loads(to_json(outer)) == found
    with pytest.raises(TypeError, match="got object"):
        plain(object())


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.lists(LEAVES | st.lists(LEAVES, max_size=3), max_size=4))
@settings(max_examples=50)
def test_plain_values_stay_or_become_json(value):
    assert json.loads(to_json(value)) == plain(value)


def test_records_and_seeds_do_not_need_torch():
    code = "import sys; import isthmus.core.record, isthmus.core.randomness; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_lists_in_errors_are_short():
    assert listed([]) == ""
    assert listed("abc") == "a, b, c"
    assert listed(range(7), 3) == "0, 1, 2 and 4 more"
    assert issubclass(CheckpointError, IsthmusError)
    assert issubclass(IsthmusError, ValueError)


def test_every_status_has_advice():
    for status in Status:
        assert status.advice.endswith(".")
    silent(1, 2, "nothing happens")


def test_operators_multiply():
    matrix = torch.randn(4, 4, dtype=torch.float64)
    matrix = matrix + matrix.T
    operator = Operator(4, lambda vectors: matrix @ vectors, dtype=torch.float64)
    vector = torch.randn(4, dtype=torch.float64)
    assert torch.allclose(operator @ vector, matrix @ vector)
    assert torch.allclose(operator @ torch.eye(4, dtype=torch.float64)[:, :2], matrix[:, :2])
    assert torch.allclose(operator.dense(), matrix)


def test_the_command_is_quoted_for_a_shell(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/opt/bin/isthmus", "barrier", "a b.pt", "--json"])
    assert provenance()["command"] == "isthmus barrier 'a b.pt' --json"


def test_provenance_is_plain_and_names_versions():
    found = provenance()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["machine"]["cpus"] >= 1


def test_means_over_pairs_read_the_upper_triangle():
    matrix = torch.tensor([[9.0, 1, 2, 3], [0, 9, 4, 5], [0, 0, 9, 6], [0, 0, 0, 9]])
    assert over_pairs(matrix).estimate == 3.5
    assert over_pairs(matrix).networks == 4
    assert str(Interval(1, 0.5, 2, 0.95, 4, "m")) == "1 [0.5, 2]"


def test_the_signed_jackknife_is_that_of_pseudo_values():
    values = torch.randn(6, 6, generator=child(0, "pairs"), dtype=torch.float64)
    found = over_pairs(values, level=0.9)
    left_out = []
    for out in range(6):
        kept = [index for index in range(6) if index != out]
        left_out.append(float(values[kept][:, kept][np.triu_indices(5, 1)].mean()))
    error = math.sqrt(5 / 6 * sum((value - np.mean(left_out)) ** 2 for value in left_out))
    reach = float(stats.t.ppf(0.95, 5)) * error
    assert (found.low, found.high) == pytest.approx((found.estimate - reach, found.estimate + reach))


def test_positive_pairs_never_reach_below_zero_and_scale():
    values = torch.randn(7, 7, generator=child(1, "pairs"), dtype=torch.float64).exp()
    found, scaled = over_pairs(values), over_pairs(1000 * values)
    assert 0 < found.low < found.estimate < found.high
    assert (scaled.low, scaled.high) == pytest.approx((1000 * found.low, 1000 * found.high))
    assert "log mean" in found.method
    single = torch.zeros(6, 6)
    single[0, 1] = 1.0
    assert "root mean" in over_pairs(single).method
    assert over_pairs(single).low == 0.0
    none = over_pairs(torch.zeros(6, 6))
    assert (none.estimate, none.low, none.high) == (0.0, 0.0, 0.0)


def test_too_few_networks_get_no_interval():
    few = over_pairs(torch.ones(3, 3))
    assert few.estimate == 1.0
    assert math.isnan(few.low)
    assert "at least 4" in few.method
    broken = torch.ones(5, 5)
    broken[0, 1] = math.nan
    assert math.isnan(over_pairs(broken).estimate)
    for wrong in (torch.ones(3), torch.ones(2, 3), torch.ones(1, 1)):
        with pytest.raises(SettingError, match="square matrix of at least two"):
            over_pairs(wrong)
    with pytest.raises(SettingError, match="at least one value"):
        over_networks([])
    assert math.isnan(over_networks([1.0]).low)


def test_students_interval_against_scipy():
    sample = torch.randn(8, generator=child(0, "sample"), dtype=torch.float64)
    found = over_networks(sample)
    expected = stats.t.interval(0.95, 7, loc=sample.mean(), scale=stats.sem(sample.numpy()))
    assert (found.low, found.high) == pytest.approx(tuple(map(float, expected)))
    assert student_quantile(0.975, 7) == pytest.approx(float(stats.t.ppf(0.975, 7)))


def test_a_part_tells_of_the_whole():
    heard = []
    told = within(lambda *said: heard.append(said), 3, 10, share=2, label="curve")
    told(1, 4, "learning")
    told(4, 4)
    told(0, 0)  # nothing to do is no share of anything
    assert heard == [(3.5, 10, "curve learning"), (5.0, 10, "curve"), (3.0, 10, "curve")]
