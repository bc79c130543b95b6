"""Study files: what is wrong is named, with what was probably meant, before anything runs."""

import json

import pytest

from isthmus.studies import Study, StudyError, parse_design, read_design
from isthmus.studies.factors.cells import cells
from isthmus.studies.factors.measures import measures_for

GOOD = {"name": "rate", "recipe": {"epochs": 1}, "factors": {"rate": [0.1, 0.3]}}


def changed(**changes):
    return {**GOOD, **changes}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(factor={}), "factor is unknown; did you mean factors?"),
        (changed(replicates={"counts": 3}), "replicates.counts is unknown; did you mean count?"),
        (changed(measures={"columns": [], "point": 3}), "measures.point is unknown; did you mean points?"),
        (changed(replicates={"differ": ["ordr"]}), "replicates.differ.0 must fit"),
        (changed(replicates={"count": 0}), "greater than or equal to 1, got '0'"),
        ({"factors": {"rate": [0.1]}}, "name is required"),
        (changed(name="a b"), "name must fit"),
        (changed(factors={}), "at least one factor"),
        (changed(factors={"rate": []}), "factors.rate needs at least one level"),
        (changed(factors={"rate": [0.1, 0.1]}), "must have different levels"),
        (changed(replicates={"count": 1, "pairs": "across"}), "replicates.count of at least 2"),
        (changed(claims=[{"words": "", "measure": "overlap", "factor": "rat"}]), "did you mean rate?"),
        (
            changed(claims=[{"words": "", "measure": "overlap", "factor": "rate", "between": [0.1, 9.0]}]),
            "must name levels of rate, got 9.0",
        ),
        (changed(replicates=2), "replicates must be a table with keys of count, members, differ, pairs, got '2'"),
        (changed(recipe="mlp"), "recipe must be a table, got 'mlp'"),
        (changed(more=1, most=2), "(and 1 more problem)"),
        ([], "a study must be a table with keys of name, "),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(content, words):
    with pytest.raises(StudyError) as caught:
        parse_design(content)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(factors={"rat": [0.1]}), "factors.rat must set a field of a recipe, got 'rat'; did you mean rate?"),
        (changed(recipe={"epoch": 1}), "recipe must set a field of a recipe, got 'epoch'; did you mean epochs?"),
        (changed(recipe={"order_seed": 1}), "must leave seeds to the study"),
        (changed(factors={"rate": [0.1, -1]}), "the cell rate=-1 is impossible: rate must be at least 0"),
        (
            changed(factors={"rate": [0.1], "o": {"levels": {"a": {"rate": 1}, "b": {"epochs": 2}}}}),
            "rate and o both set rate",
        ),
        (
            changed(factors={"o": {"levels": {"a": {"rate": 0.2}, "b": {"rate": 0.2}}}}),
            "o=a and o=b are the same",
        ),
        (
            changed(factors={"o": {"levels": {"a": {"differ": ["oder"]}}}}),
            "got 'oder'; did you mean order?",
        ),
        (
            changed(replicates={"differ": ["augmentation"]}),
            "augmentation seeds change nothing while augmentation is off",
        ),
        (changed(replicates={"differ": []}), "differ is empty"),
        (changed(engine="sequentiel"), "got 'sequentiel'; did you mean sequential?"),
    ],
)
def test_an_impossible_cell_is_refused_before_anything_runs(content, words):
    design = parse_design(content)
    with pytest.raises(StudyError) as caught:
        cells(design)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


TWO_WAY = {
    "name": "two",
    "recipe": {"steps": 4},
    "factors": {"sharing": ["shared", "separate"], "locality": ["local", "everywhere"]},
    "combinations": [
        {"of": {"sharing": "shared", "locality": "local"}, "set": {"network": "convolutional"}},
        {"of": {"sharing": "separate", "locality": "local"}, "set": {"network": "locally_connected"}},
        {"of": {"sharing": "shared", "locality": "everywhere"}, "set": {"network": "tied_dense"}},
        {
            "of": {"sharing": "separate", "locality": "everywhere"},
            "set": {"network": "dense", "settings": {"width": 4}},
        },
    ],
}


def test_levels_of_two_factors_together_name_the_network_of_each_cell():
    found = cells(parse_design(TWO_WAY))
    networks = {(cell.levels["sharing"], cell.levels["locality"]): cell.places[0].recipe for cell in found}
    assert {levels: recipe.network for levels, recipe in networks.items()} == {
        ("shared", "local"): "convolutional",
        ("shared", "everywhere"): "tied_dense",
        ("separate", "local"): "locally_connected",
        ("separate", "everywhere"): "dense",
    }
    assert networks["separate", "everywhere"].settings["width"] == 4
    # A factor of combinations may still set fields of its own, and a third factor crosses them.
    more = {
        **TWO_WAY["factors"],
        "sharing": {"levels": {"shared": {"rate": 0.2}, "separate": {"rate": 0.3}}},
        "epochs": [1, 2],
    }
    crossed = cells(parse_design({**TWO_WAY, "recipe": {}, "factors": more}))
    assert len(crossed) == 8
    assert {(c.levels["sharing"], c.places[0].recipe.rate) for c in crossed} == {("shared", 0.2), ("separate", 0.3)}


def without(index=None, **entry):
    kept = [one for place, one in enumerate(TWO_WAY["combinations"]) if place != index]
    return {**TWO_WAY, "combinations": [*kept, *([entry] if entry else [])]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (without(2),
         "sharing and locality must name each cell once, but for sharing=shared, locality=everywhere it is missing"),
        (without(None, of={"sharing": "shared", "locality": "local"}, set={"network": "dense"}),
         "but for sharing=shared, locality=local it is there 2 times"),
        (without(2, of={"sharing": "shared", "locality": "everywere"}, set={}),
         "combinations.of must name levels of locality, got 'everywere'; did you mean everywhere?"),
        (without(2, of={"shaing": "shared", "locality": "local"}, set={}),
         "combinations.of must name factors of the study, got 'shaing'; did you mean sharing?"),
        (without(None, of={"sharing": "shared"}, set={"rate": 1.0}), "of two factors or more, got sharing=shared"),
        (without(3, of={"sharing": "separate", "locality": "everywhere"}, set={"netwok": "dense"}),
         "combinations must set a field of a recipe, got 'netwok'; did you mean network?"),
        ({**TWO_WAY, "factors": {**TWO_WAY["factors"], "network": ["mlp-8x1", "mlp-4x1"]}},
         "network and sharing and locality together both set network"),
        (without(3, of={"sharing": "separate", "locality": "everywhere"}, set={"network": "tied_dense"}),
         "sharing=shared, locality=everywhere and sharing=separate, locality=everywhere are the same"),
        (without(3, of={"sharing": "separate", "locality": "everywhere"}, sets={}),
         "combinations.3.sets is unknown; did you mean set?"),
        ({**TWO_WAY, "combinations": []}, "factors.sharing must set a field of a recipe, got 'sharing'"),
    ],
)  # fmt: skip
def test_a_table_with_a_hole_or_a_contradiction_is_refused(content, words):
    with pytest.raises(StudyError) as caught:
        cells(parse_design(content))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"factor": "sharing", "at": {"localty": "local"}}, "claims.at must name factors of the study, got 'localty'"),
        ({"factor": "sharing", "at": {"locality": "lokal"}}, "got 'lokal'; did you mean local?"),
        ({"factor": "sharing", "at": {"sharing": "shared"}}, "cannot hold it at a level or depend on it"),
        ({"factor": "sharing", "depends_on": "localty"}, "got 'localty'; did you mean locality?"),
        ({"factor": "sharing", "depends_on": "locality", "where": ["local", "no"]}, "levels of locality, got 'no'"),
    ],
)
def test_a_claim_about_what_the_study_does_not_vary_is_refused(claim, words):
    with pytest.raises(StudyError) as caught:
        parse_design({**TWO_WAY, "claims": [{"words": "w", "measure": "overlap", **claim}]})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (changed(recipe={"network": "mlp-8x1", "settings": {"widht": 3}}), "widht is unknown; did you mean width?"),
        (changed(recipe={"network": "mlq-8"}), "the cell rate=0.1 is impossible: .*got mlq-8"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_before_anything_runs(content, words):
    with pytest.raises(StudyError, match=words):
        Study.of(parse_design(content))


def test_an_unknown_measure_is_refused_with_a_suggestion():
    with pytest.raises(StudyError, match="got 'eror_barrier'; did you mean error_barrier"):
        measures_for(parse_design(changed(measures=["eror_barrier"])))
    claim = {"words": "", "measure": "distance", "factor": "rate", "direction": "rises"}
    with pytest.raises(StudyError, match="must be about a measured column"):
        measures_for(parse_design(changed(measures=["overlap"], claims=[claim])))


def test_toml_and_yaml_say_the_same(tmp_path):
    (tmp_path / "s.toml").write_text('name = "rate"\nrecipe.epochs = 1\n[factors]\nrate = [0.1, 0.3]\n')
    (tmp_path / "s.yaml").write_text(json.dumps(GOOD))
    assert read_design(tmp_path / "s.toml") == read_design(tmp_path / "s.yaml") == parse_design(GOOD)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.toml", b"name = ", "must be TOML"),
        ("s.yaml", b"a: [", "must be YAML"),
        ("s.txt", b"", "must be a .toml, .yaml or .yml file"),
        ("s.toml", b"\xff\xfe", "not UTF-8 text"),
        ("gone.toml", None, "no such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(StudyError, match=words) as caught:
        read_design(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_cells_share_seeds_so_that_they_are_compared_seed_by_seed():
    first, second = cells(parse_design(GOOD))
    for a, b in zip(first.places, second.places, strict=True):
        assert a.key != b.key
        assert a.recipe.order_seed == b.recipe.order_seed
        assert a.recipe.initialisation_seed == b.recipe.initialisation_seed


@pytest.mark.parametrize("differ", [["order"], ["initialisation"], ["order", "initialisation"]])
def test_members_differ_in_the_named_seeds_only_and_replicates_in_all(differ):
    (cell, _) = cells(parse_design(changed(replicates={"count": 3, "members": 2, "differ": differ})))
    for replicate in range(3):
        one, other = (p.recipe for p in cell.places if p.replicate == replicate)
        names = ["initialisation", "order", "augmentation", "label_noise", "subset", "mask", "spawn"]
        changes = {name for name in names if getattr(one, f"{name}_seed") != getattr(other, f"{name}_seed")}
        assert changes == set(differ)
    assert len({p.recipe.initialisation_seed for p in cell.places if p.member == 0}) == 3


def test_cells_that_differ_only_in_what_differs_share_their_first_member():
    levels = {"order": {"differ": ["order"]}, "start": {"differ": ["initialisation"]}}
    first, second = cells(parse_design(changed(factors={"noise": {"levels": levels}})))
    shared = {p.key for p in first.places} & {p.key for p in second.places}
    assert shared == {p.key for p in first.places if p.member == 0}


def test_pairs_within_and_across():
    (within, _) = cells(parse_design(changed(replicates={"count": 3, "members": 3})))
    assert [c.units for c in within.comparisons] == [(0,)] * 3 + [(1,)] * 3 + [(2,)] * 3
    settings = {"count": 4, "members": 1, "pairs": "across"}
    (across, _) = cells(parse_design(changed(replicates=settings)))
    assert [c.units for c in across.comparisons] == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    (alone, _) = cells(parse_design(changed(replicates={"count": 1, "members": 3})))
    assert [c.units for c in alone.comparisons] == [(0, 1), (0, 2), (1, 2)]


def test_networks_of_the_zoo_are_told_the_data_s_shape():
    study = Study.of(parse_design(changed(recipe={"network": "mlp-8x1", "settings": {"depth": 2}})))
    assert dict(study.cells[0].places[0].recipe.settings) == {"inputs": [1, 8, 8], "classes": 10, "depth": 2}


def test_a_nested_setting_can_be_a_factor():
    study = Study.of(parse_design(changed(recipe={"network": "mlp"}, factors={"settings.width": [4, 8]})))
    assert [cell.places[0].recipe.settings["width"] for cell in study.cells] == [4, 8]
