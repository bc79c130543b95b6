"""The table of benchmarks: its arithmetic, its limits, and that the command runs."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def loaded(name: str):
    spec = importlib.util.spec_from_file_location(f"_benchmark_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table():
    return loaded("all")


def test_a_slope_comes_back_with_its_interval():
    growth = loaded("growth")
    sizes = [10, 20, 40, 80]
    slope, low, high = growth.fitted(sizes, [3e-6 * size**1.5 for size in sizes])
    assert slope == pytest.approx(1.5)
    assert high - low < 1e-6
    slope, low, high = growth.fitted(sizes, [1.1, 1.9, 4.4, 7.6])
    assert low < 1.0 < high
    assert all(map(math.isnan, growth.fitted([1, 2], [1, 2])[1:]))


def test_a_ratio_is_the_peers_seconds_over_ours(table):
    rows = [
        table.Row("a", "isthmus", 2.0, None, ""),
        table.Row("a", "peer", 5.0, None, ""),
        table.Row("a", "broken peer", None, None, "over 60 s"),
        table.Row("b", "peer", 1.0, None, ""),
    ]
    assert [row.ratio for row in table.with_ratios(rows)] == [None, 2.5, None, None]
    text = table.markdown(table.with_ratios(rows), [], {"torch": "2"}, "a machine")
    assert "| a | peer | 5 | 2.50 | – |  |" in text
    assert "over 60 s" in text


def test_a_process_is_measured_and_killed_at_its_limit(table):
    code = "import time; x = bytearray(200_000_000); time.sleep(1); print('{\"seconds\": 1}')"
    done = table.ran(["-c", code], limit=60)
    assert table.last_json(done) == {"seconds": 1}
    assert done.trouble is None
    assert 190 < done.peak < 400
    assert table.ran(["-c", "import time; time.sleep(60)"], limit=0.3).trouble == "over 0 s"
    assert table.ran(["-c", "raise ValueError('no')"], limit=60).trouble == "ValueError: no"


def test_every_benchmark_is_in_the_table_or_says_why_not(table):
    text = (FOLDER / "all.py").read_text(encoding="utf-8")
    elsewhere = {"all.py", "serving.py", "paths.py", "starting.py"}  # the site under load, ways and commands of our own
    for file in FOLDER.glob("*.py"):
        assert file.name in elsewhere or f'"{file.name}"' in text, f"{file.name} is not in the table"


@pytest.mark.slow
def test_the_command_prints_its_tables(tmp_path):
    words = ["--quick", "--only", "line", "growth", "--json", str(tmp_path / "all.json")]
    done = subprocess.run([sys.executable, str(FOLDER / "all.py"), *words], capture_output=True, text=True, check=True)
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert {row["system"] for row in found["rows"]} == {"isthmus", "loss-landscapes", "plain loop"}
    assert len(found["growth"]) == 7
    assert "| 25 points of a line | isthmus |" in done.stdout
