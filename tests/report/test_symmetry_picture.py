"""The picture of a symmetry: layers down, groups across, a cell where they meet."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import isthmus
from isthmus.report import figures
from isthmus.report.assemble import page_of_results
from isthmus.report.page import render
from isthmus.report.redundancy import summary
from isthmus.report.section import section


@pytest.fixture(scope="module")
def values() -> dict:
    module = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    found = isthmus.discover(module, torch.zeros(3, 4), verify=False)
    return summary(found, isthmus.layer_map(found))


@pytest.mark.parametrize("language", ["en", "ja"])
def test_every_meeting_of_a_layer_and_a_group_is_drawn(values: dict, language: str) -> None:
    (figure,) = section(values, language=language).figures
    rows = [data for layer in figure.spec["layer"] for data in layer["data"]["values"] if "part" in data]
    assert {(row["layer"], row["group"]) for row in rows} == {
        ("0", "0"), ("1", "0"), ("3", "0"), ("3", "3"), ("5", "3"),
    }  # fmt: skip
    threads = [data for layer in figure.spec["layer"] for data in layer["data"]["values"] if "last" in data]
    assert {(row["group"], row["layer"], row["last"]) for row in threads} == {("0", "0", "3"), ("3", "3", "5")}
    assert figure.caption
    assert "2" in figure.description


def test_the_legend_names_only_what_is_drawn(values: dict) -> None:
    (figure,) = section(values).figures
    colours = next(layer["encoding"]["color"] for layer in figure.spec["layer"] if "color" in layer["encoding"])
    assert len(colours["scale"]["domain"]) == 2


def test_the_picture_can_be_written_and_read_on_a_page(values: dict, tmp_path) -> None:
    (figure,) = section(values).figures
    assert figures.write_picture(figure.spec, tmp_path / "map.svg").read_text().count("<path") > 5
    assert figure.title in render(page_of_results([("symmetry", values)]))


def test_a_summary_without_a_map_has_no_picture(values: dict) -> None:
    assert section({**values, "map": None}).figures == []
