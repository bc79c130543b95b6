"""Heat maps say a number by colour, and in ink that is seen on it."""

from isthmus.report import figures


def test_cells_of_a_matrix_are_coloured_by_their_number_from_zero_up():
    rows = [{"one": a, "other": b, "value": float(a != b)} for a in "ab" for b in "ab"]
    words = {"row": "one", "column": "other", "value": "value", "title": "barrier"}
    cells, numbers = figures.matrix(rows, **words, high=2.0)["layer"]
    assert cells["mark"]["type"] == "rect"
    assert cells["encoding"]["color"]["field"] == "value"
    assert cells["encoding"]["color"]["scale"] == {"scheme": "viridis", "domainMin": 0, "domainMax": 2.0}
    assert numbers["encoding"]["color"]["condition"]["test"] == "datum['value'] > 1.0"
    wide = [{"one": a, "other": b, "value": 1.0} for a in range(13) for b in range(13)]
    assert "layer" not in figures.matrix(wide, **words)  # no numbers where they would not fit
