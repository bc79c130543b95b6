"""Charts of any number of series, of long names and of values over decades can still be read."""

import itertools
import math
import re

import pytest
import vl_convert
from tests.report.test_tokens import contrast

from isthmus.report import figures
from isthmus.report.figures.colours import PALETTE, colours


@pytest.mark.parametrize("count", [1, 8, 9, 12, 27, 60])
def test_no_two_series_share_a_colour_and_each_is_seen_on_both_papers(count):
    found = colours(count)
    assert len(set(found)) == count
    assert tuple(found[: len(PALETTE)]) == PALETTE[:count]
    assert all(contrast(colour, paper) >= 2.2 for colour in found for paper in ("#ffffff", "#14181d"))


def test_the_first_dozen_colours_are_far_apart():
    def channels(colour):
        return [int(colour[place : place + 2], 16) for place in (1, 3, 5)]

    pairs = itertools.combinations(colours(12), 2)
    assert min(math.dist(channels(one), channels(other)) for one, other in pairs) > 40


def test_as_many_series_as_anybody_asks_for():
    assert len(colours(2000)) == 2000


def encodings(spec):
    """Every encoding in a chart, however it is nested."""
    found = [spec["encoding"]] if "encoding" in spec else []
    return found + [
        one for part in ("layer", "concat", "vconcat") for each in spec.get(part, ()) for one in encodings(each)
    ]


def points(count):
    return [{"x": place, "y": place, "s": f"setting {place}", "n": "net"} for place in range(count)]


def test_nine_settings_of_a_scatter_are_nine_looks():
    words = dict(x="x", y="y", x_title="sharpness", y_title="gap", series="s", name="n")
    names = [f"setting {place}" for place in range(9)]
    (encoding,) = encodings(figures.scatter(points(9), **words, order=names))
    looks = zip(encoding["color"]["scale"]["range"], encoding["shape"]["scale"]["range"], strict=True)
    assert len(set(looks)) == 9
    assert len(set(encoding["shape"]["scale"]["range"])) == 2
    # One legend for both: Vega joins legends of one field and one domain.
    assert encoding["shape"]["scale"]["domain"] == encoding["color"]["scale"]["domain"]
    assert "s" in [told["field"] for told in encoding["tooltip"]]
    # Charts beside each other share looks, and each names what it holds.
    (fewer,) = encodings(figures.scatter(points(3), **words, order=names))
    assert fewer["color"]["scale"] == encoding["color"]["scale"]
    assert fewer["color"]["legend"]["values"] == names[:3]
    (plain,) = encodings(figures.scatter(points(8), **words, order=names[:8]))
    assert "shape" not in plain


def test_few_lines_are_told_apart_without_their_colours():
    rows = [{"x": x, "y": y, "s": f"way {y}"} for x in (0, 1) for y in range(4)]
    spec = figures.curves(rows, x="x", y="y", x_title="x", y_title="y", series="s")
    picture = vl_convert.vegalite_to_svg(spec)
    legend = picture[picture.index("role-legend-symbol") :]
    assert len(set(re.findall(r'<path transform="translate\([^"]*" d="([^"]+)"', legend))) == 4
    points = picture[picture.index("symbol mark container") :]
    assert len(set(re.findall(r'roledescription="point"[^>]* d="([^"]+)"', points))) == 4


def test_nine_lines_are_told_apart_by_dashes_too():
    rows = [{"series": f"line {line}", "t": t, "loss": line * t} for line in range(9) for t in (0.0, 1.0)]
    (encoding,) = encodings(figures.curves(rows, x="t", y="loss", x_title="t", y_title="loss"))
    assert encoding["strokeDash"]["scale"]["range"][7:] == [[1, 0], [6, 3]]
    assert encoding["color"]["legend"]["symbolType"] == "stroke"


@pytest.mark.parametrize("name", ["replica-{}.safetensors", "{}"])
def test_every_column_of_a_matrix_is_named(name):
    names = [name.format(place) for place in range(3)]
    rows = [{"one": one, "other": other, "value": 1.0} for one in names for other in names]
    picture = vl_convert.vegalite_to_svg(
        figures.matrix(rows, row="one", column="other", value="value", title="loss barrier")
    )
    assert all(picture.count(f">{one}<") == 2 for one in names)  # once on each axis


@pytest.mark.parametrize(("low", "high"), [(0.1, 4.1), (0.05, 1.2), (1e-6, 50.0), (0.9, 95.0), (1e-30, 1e9)])
def test_a_legend_over_decades_names_few_round_numbers(low, high):
    rows = [{"x": float(x), "y": float(y), "loss": low if x == 0 else high} for x in range(3) for y in range(3)]
    spec = figures.plane(rows, [], x_title="x", y_title="y", title="loss")
    values = next(
        one["color"]["legend"]["values"] for one in encodings(spec) if one.get("color", {}).get("field") == "loss"
    )
    assert 1 <= len(values) <= 5
    assert all(low <= value <= high for value in values)
    gaps = [math.log10(right / left) for left, right in itertools.pairwise(values)]
    assert min(gaps, default=1) > 0.06 * math.log10(high / low)  # wide enough for a number of 12 pixels in 200


@pytest.mark.parametrize(("name", "kept"), [("spawn = 0", 72), ("three quarters frozen at constants", 210)])
def test_no_more_is_kept_for_names_than_they_need(name, kept):
    rows = [{"cell": name, "series": "all", "value": 0.5, "low": 0.4, "high": 0.6}]
    spec = figures.intervals(rows, x="value", y="cell", x_title="error", series="series", order=["all"], floor=None)
    assert {one["y"]["axis"]["minExtent"] for one in encodings(spec) if "axis" in one.get("y", {})} == {kept}


def test_points_at_the_edge_of_a_scatter_are_drawn_whole():
    spec = figures.scatter(
        points(3), x="x", y="y", x_title="sharpness", y_title="gap", series="s", order=["setting 0"], name="n"
    )
    picture = vl_convert.vegalite_to_svg(spec)
    places = [float(found) for found in re.findall(r'aria-roledescription="point"[^>]*translate\(([\d.]+),', picture)]
    assert len(places) == 3
    assert min(places) >= 8
    assert max(places) <= figures.WIDTH - 8


@pytest.mark.parametrize("kind", ["bars", "dots"])
def test_long_names_stand_above_what_they_name_and_take_no_width_from_it(kind):
    """Every name whole, no two of them in one place, and the whole no wider than a phone shows without shrinking it."""
    names = [f"encoder.layer.{place}.attention.self.query.weight" for place in range(6)]
    rows = [{"n": name, "s": s, "v": 1.0 + len(s)} for name in names for s in ("one", "three")]
    picture = vl_convert.vegalite_to_svg(getattr(figures, kind)(rows, x="v", y="n", x_title="v", series="s"))
    assert float(re.search(r'<svg[^>]* width="([\d.]+)"', picture)[1]) < 380
    assert all(f">{name}</text>" in picture for name in names)
    tall = float(re.search(r'<svg[^>]* height="([\d.]+)"', picture)[1])
    assert tall > len(names) * 30


def test_names_of_values_close_together_do_not_stand_on_each_other():
    rows = [{"at": place / 10, "density": 2.0 ** -(place / 10)} for place in range(200)]
    values = [4.0, 4.05, 4.1, 4.12, 9.0, 19.88, 19.9]
    marks = [{"at": at, "name": f"class {n}", "kind": "c", "top": 0.1} for n, at in enumerate(values)]
    spec = figures.outliers(rows, marks, x_title="x", y_title="y", order=["c"])
    picture = vl_convert.vegalite_to_svg(spec)
    places = [
        float(re.search(rf'transform="translate\(([\d.]+),[^"]*"[^>]*>class {n}</text>', picture)[1]) for n in range(7)
    ]
    assert places == sorted(places)
    assert min(after - before for before, after in itertools.pairwise(places)) > 10  # the height of a letter
    assert places[4] == pytest.approx(9.0 / 20 * 350, abs=1)  # who stands alone stays at its value


def test_what_is_spread_stays_in_its_order_and_around_its_middle():
    found = figures.spread([5.0, 5.0, 5.0, 20.0, 5.1], least=2.0)
    assert found[3] == 20.0
    close = [found[place] for place in (0, 1, 2, 4)]
    assert [after - before for before, after in itertools.pairwise(close)] == pytest.approx([2.0] * 3)
    assert sum(close) == pytest.approx(20.1)  # least squares keep the mean
    assert figures.spread([], least=1.0) == []
    assert figures.spread([9.0, 9.5, 1.0], least=2.0, low=1.5, high=10.0) == [8.0, 10.0, 1.5]
