"""The section of a spectrum: which outliers bear the name of what, and the blocks of layers."""

import pytest

from isthmus.report.spectrum import eigenvalue_rows, spectrum_section
from isthmus.report.words import words_for

WORDS = words_for("en")


@pytest.fixture
def found():
    """Four outliers, of which the classes explain three: by their means, by rivals, by a mean without a name."""
    return {
        "matrix": "hessian", "size": 100,
        "density": {
            "at": [-1.0, 0.0, 9.0], "cumulative": [0.0, 0.9, 1.0], "low": [0.0, 0.8, 1.0], "high": [0.0, 1.0, 1.0],
            "nodes": [[-0.5, 0.0, 9.0]], "weights": [[0.1, 0.8, 0.1]], "size": 100,
        },
        "largest": {"values": [9.0, 7.0, 5.0, 3.0], "residuals": [1e-4, 2e-4, 3e-4, 4e-4]},
        "smallest": {"values": [-0.5], "residuals": [5e-4]},
        "classes": {
            "class_overlap": [0.9, 0.2, 0.6], "rival_overlap": [0.3, 0.7, 0.55],
            "nearest": [4, 1, 2], "nearest_share": [0.8, 0.1, 0.49],
        },
        "layers": {
            "fc1": {
                "size": 60, "largest": {"values": [8.0]},
                "trace": {"interval": {"estimate": 20.0, "low": 18.0, "high": 22.0, "level": 0.95}},
            },
        },
    }  # fmt: skip


def marks(section):
    """The kind of each outlier in the drawn density, by its place."""
    return {row["at"]: row["kind"] for row in rows_of(section.figures[0].spec) if "kind" in row}


def rows_of(value):
    """Every row of data within a chart's description."""
    if isinstance(value, dict):
        if isinstance(value.get("values"), list):
            yield from (row for row in value["values"] if isinstance(row, dict))
        for part in value.values():
            yield from rows_of(part)
    elif isinstance(value, list):
        for part in value:
            yield from rows_of(part)


def test_an_outlier_is_of_what_most_of_its_vector_is(found):
    kinds = [WORDS(f"spectrum.{name}") for name in ("by_class", "by_rival", "by_class", "unexplained")]
    assert marks(spectrum_section(found, WORDS)) == dict(zip([9.0, 7.0, 5.0, 3.0], kinds, strict=True))
    found["classes"]["class_overlap"][0] = found["classes"]["rival_overlap"][0] = 0.4  # under half: neither
    assert marks(spectrum_section(found, WORDS))[9.0] == WORDS("spectrum.unexplained")
    assert set(marks(spectrum_section({**found, "classes": None}, WORDS)).values()) == {WORDS("spectrum.unexplained")}


def test_both_ends_stand_in_the_table_with_what_the_classes_explain(found):
    _, rows = eigenvalue_rows(found, WORDS)
    name = WORDS("spectrum.of_class", n=4)
    assert rows == [
        [9.0, 1e-4, 0.9, name], [7.0, 2e-4, 0.2, ""], [5.0, 3e-4, 0.6, ""], [3.0, 4e-4, None, None],
        [-0.5, 5e-4, None, None],
    ]  # fmt: skip
    _, rows = eigenvalue_rows({**found, "classes": None, "smallest": None}, WORDS)
    assert [row[2:] for row in rows] == [[None, None]] * 4


def test_a_layers_block_is_told(found):
    section = spectrum_section(found, WORDS)
    layer = section.tables[-1].rows[0]
    assert layer[:3] == ["fc1", 60, 8.0]
    assert "20" in layer[3]
    assert WORDS("spectrum.classes", share="57%", n=3) in section.text  # (.9 + .2 + .6)/3
