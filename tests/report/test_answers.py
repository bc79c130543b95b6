"""The first sentence of a page answers its question, and says no more than was measured."""

import math

import pytest
import torch
from torch import nn

from isthmus.connect import barriers
from isthmus.core.losses import squared_error
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.report import figures
from isthmus.report.assemble import page_of_results
from isthmus.report.numbers import interval_text, power_of_ten, scientific
from isthmus.report.section import section


def interval(estimate):
    return {"estimate": estimate, "low": None, "high": None}


def comparison(names=("a", "b"), treated=(), **errors):
    """A comparison's plain values: by method the error barrier; the loss barrier is ten times as high."""
    curve = {"positions": [0, 0.5, 1], "loss": [0.4, 1.0, 0.2], "metrics": {"error": [0.1, 0.3, 0.1]},
             "normalisation": "reestimate", "treated": list(treated),
             "treated_ends": [{"loss": 0.3}, {"loss": 0.1}] if treated else None}  # fmt: skip
    kinds = ("loss_barrier", "loss_barrier_over_mean", "error_barrier", "error_barrier_over_mean", "midpoint")
    found = {
        method: {
            "heights": {"loss_barrier": [[0.0] * len(names) for _ in names]},
            "intervals": {kind: interval(10 * value if "error" not in kind else value) for kind in kinds},
            "curves": {"(0, 1)": curve},
            "names": names,
            "normalisation": "reestimate",
        }
        for method, value in errors.items()
    }
    return {"kind": "Comparison", "barriers": found, "names": list(names), "provenance": {}}


@pytest.mark.parametrize(
    ("errors", "said"),
    [
        ({"naive": 0.01}, "Linearly connected as they are: error barrier 1.0%"),
        ({"naive": 0.0, "weights": 0.05}, "Linearly connected as they are: error barrier 0.0%"),
        ({"naive": 0.3}, "Not linearly connected as they are: error barrier 30.0%"),
        (
            {"naive": 0.3, "weights": 0.1, "activations": 0.0},
            "connects them: error barrier 30.0% before, 0.0% after ac",
        ),
        (
            {"naive": 0.3, "weights": 0.1, "activations": 0.2},
            "do not change that: error barrier 30.0% as they are, 10.",
        ),
        ({"naive": 0.3, "weights": 0.4}, "do not change that: error barrier 30.0% as they are, 40.0% after weight"),
    ],
)
def test_a_barrier_s_answer(errors, said):
    """The page named the loss barrier alone, and not whether the solutions are connected."""
    found = section(comparison(**errors))
    assert said in found.headline
    assert "mean error barrier" not in found.headline  # of one pair
    assert section(comparison(**errors), language="ja").headline
    assert "mean error barrier" in section(comparison(names=("a", "b", "c"), **errors)).headline


def test_what_is_said_of_running_statistics():
    plain, normed = section(comparison(naive=0.3)), section(comparison(naive=0.3, treated=["bn"]))
    assert "The networks keep no running statistics." in plain.text
    assert (
        "with losses of 0.4 and 0.2; treated as the points between them they would have 0.3 and 0.1" in normed.text[1]
    )


def test_a_regression_has_no_threshold():
    network = Network.of(nn.Linear(2, 1))
    inputs, targets = torch.ones(4, 2), torch.zeros(4, 1)
    objective = Objective(network, inputs, targets, loss=squared_error, metrics={})
    found = barriers([network.weights, {n: -t for n, t in network.weights.items()}], objective, points=3)
    values = {**comparison(naive=0.0), "barriers": {"naive": found.to_dict()}}
    assert section(values).headline.startswith("Mean loss barrier between the solutions as they are: ")


def test_the_flattest_solution_is_named_where_the_measures_agree():
    def flatness(random, worst):
        rises = {"random": random, "worst": worst, "adaptive": worst}
        return {
            "kind": "Flatness", "names": ["a", "b"], "scores": [{"loss": 0.1}] * 2, "scale_removed": True,
            "eigenvalues": [{"values": [1.0]}] * 2, "trace": [{"interval": interval(1.0)}] * 2,
            **{kind: [{"rise": rise, "interval": None} for rise in both] for kind, both in rises.items()},
        }  # fmt: skip

    assert "agree: the flattest solution is b" in section(flatness([0.2, 0.1], [0.4, 0.3])).headline
    apart = section(flatness([0.2, 0.1], [0.3, 0.4])).headline
    assert "disagree" in apart
    assert "filter-normalised: b; worst in a ball: a" in apart


def test_a_command_s_page_bears_its_name():
    """It bore the name of the result's class."""
    values = {**comparison(naive=0.3), "provenance": {"command": "isthmus barrier a.safetensors b.safetensors"}}
    assert page_of_results([("Comparison", values)]).title == "isthmus barrier"
    assert page_of_results([("saved/found.json", values)]).title == "found.json"


def test_numbers_as_people_write_them():
    assert power_of_ten(math.log10(math.factorial(48)) + 300) == "1.2 × 10³⁶¹"
    assert power_of_ten(math.log10(5040)) == "5\u202f040"
    assert power_of_ten(8.99999) == "1.0 × 10⁹"
    assert scientific(2.5e9) == "2.5 × 10⁹"
    assert interval_text({"estimate": 2, "low": 1, "high": 3}, ".1f") == "2.0 [1.0, 3.0]"


def test_counts_have_whole_ticks():
    rows = [{"series": "a", "n": n, "y": 0.5} for n in (1, 2, 3)]
    axis = figures.curves(rows, x="n", y="y", x_title="", y_title="")["encoding"]["x"]["axis"]
    assert axis["values"] == [1, 2, 3]
    rows = [{"series": "a", "n": n, "y": 0.5} for n in (0.0, 0.5, 1.0)]
    assert "values" not in figures.curves(rows, x="n", y="y", x_title="", y_title="")["encoding"]["x"]["axis"]


def test_a_histogram_without_a_null_has_no_line_for_it():
    """An empty line was drawn, and the drawing library complained in the reader's console."""
    row = {"q1": 0.0, "q2": 0.1, "density": 1.0, "low": 0.0, "high": 2.0, "null": None}
    for null, layers in ((None, 2), (0.5, 3)):
        spec = figures.histogram([{**row, "null": null}], x_title="", y_title="", null="null")
        assert len(spec["layer"]) == layers


def subject(place, setting):
    return {"name": f"net {place}", "gap": 0.1 * place, "rate": 0.1 * setting, "batch_size": 32, "matched": True}


def test_sharpness_has_a_chart_for_each_measure_that_fits_a_narrow_page():
    each = {
        "measure": "trace",
        "plain": interval(0.1),
        "partial": interval(0.1),
        "within": interval(0.1),
        "p_corrected": 1,
    }
    values = {
        "kind": "Generalisation",
        "subjects": [subject(place, place) for place in range(9)],
        "sharpness": {"trace": [float(place) for place in range(9)], "worst": [float(-place) for place in range(9)]},
        "gap": "loss",
        "grid": {"target": 0.4},
        "diverged": 0,
        "scale_removed": True,
        "verdict": {"level": 0.95, "networks": 9, "unmatched": 0, "loss_range": [0.3, 0.4],
                    "correlations": [each, {**each, "measure": "worst"}]},
    }  # fmt: skip
    part = section(values, language="en")
    assert len(part.figures) == 2
    assert len({figure.title for figure in part.figures}) == 2
    assert all(figure.spec["width"] <= figures.WIDTH and figure.description for figure in part.figures)


@pytest.mark.parametrize("language", ["en", "ja"])
def test_remedies_of_too_few_networks_say_so(language):
    barrier = {"loss": interval(0.3), "error": interval(0.1)}
    trial = {
        "remedy": "plain", "size": 8, "label_noise": 0.0, "naive": barrier, "aligned": barrier, "verdict": "unknown",
        "verdict_aligned": "unknown", "remaining_aligned": interval(None), "cost": None, "slowdown": None,
        "log10_copies": 3.0, "width": 8, "parameters": 100, "accuracy": interval(0.9), "deviation": 0.1,
        "disagreement": interval(0.1), "steps": None, "reached": 0, "networks": 2,
    }  # fmt: skip
    values = {"kind": "Remedies", "trials": [trial, {**trial, "remedy": "sorted"}], "threshold": 0.02, "target": 0.9,
              "model": None, "matched": True, "left_out": {}, "claims": [], "scaling": []}  # fmt: skip
    said = section(values, language=language).headline
    assert ("too few networks to judge units sorted" if language == "en" else "判定できず") in said


def test_a_page_of_several_results_says_the_answer_of_each():
    page = page_of_results([("one.json", comparison(naive=0.01)), ("two.json", comparison(naive=0.3))])
    assert page.verdict == "Results on this page: 2, drawn as they were measured."
    assert [reason.split(":")[0] for reason in page.reasons] == [
        "Linearly connected as they are",
        "Not linearly connected as they are",
    ]
