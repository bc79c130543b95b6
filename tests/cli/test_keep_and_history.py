"""``isthmus merge --keep`` and ``isthmus history`` as a user runs them."""

import json

import numpy as np
import pytest
import torch

from isthmus.core.checkpoint import load, save
from isthmus.core.history import beside, content_of
from isthmus.core.network import Network
from isthmus.core.randomness import child
from isthmus.zoo.networks import network

MODEL = "mlp-8x1"


@pytest.fixture
def family(tmp_path):
    """A base, two children, and for each child the examples that it gets right, all of them."""
    base = network(MODEL, inputs=(1, 4, 4), classes=5, seed=0).state_dict()
    save(base, tmp_path / "base.safetensors")
    net = Network.of(network(MODEL, inputs=(1, 4, 4), classes=5))
    inputs = torch.randn(80, 1, 4, 4, generator=child(7))
    for place, name in enumerate("ab"):
        generator = child(place, "family")
        moved = {n: t + 0.2 * torch.randn(t.shape, generator=generator) for n, t in base.items()}
        save(moved, tmp_path / f"{name}.safetensors")
        np.savez(tmp_path / f"{name}.npz", x=inputs.numpy(), y=net(moved, inputs).argmax(1).numpy())
    return tmp_path


def words(family, *floors, out="m.safetensors", **more):
    names = [family / f"{name}.safetensors" for name in "ab"]
    keep = [part for name, floor in zip("ab", floors, strict=False) for part in
            ("--keep", f"{name}={family / name}.npz:{floor}")]  # fmt: skip
    extra = [part for key, value in more.items() for part in (f"--{key}", value)]
    return ("merge", *names, "--base", family / "base.safetensors", "--model", MODEL, *keep, "-o", family / out, *extra)


def test_a_merge_that_keeps_what_it_must(shell, family):
    page = family / "page.html"
    code, out, err = shell(*words(family, 0.2, "0.2:2", tries=25, report=page), "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["kept"]["kind"] == "Protected"
    assert told["kept"]["merges"] <= 25
    assert [one["priority"] for one in told["kept"]["kept"]] == [1.0, 2.0]
    assert {one["expert"] for one in told["kept"]["kept"]} == {"a.safetensors", "b.safetensors"}
    written = load(family / "m.safetensors")
    net = Network.of(network(MODEL, inputs=(1, 4, 4), classes=5))
    for one in told["kept"]["kept"]:
        with np.load(family / f"{one['name']}.npz") as file:
            right = net(written, torch.tensor(file["x"])).argmax(1) == torch.tensor(file["y"])
        halves = [one["selection"]["merged"], one["verification"]["merged"]]
        assert float(right.double().mean()) == pytest.approx(sum(halves) / 2)
    assert "What can be kept together" in page.read_text()
    record = json.loads(beside(family / "m.safetensors").read_text())
    assert [parent["role"] for parent in record["parents"]] == ["model", "model", "base"]
    assert record["parents"][0]["content"] == content_of(load(family / "a.safetensors"))
    code, out, _ = shell("history", family, "--json")
    values = json.loads(out)
    assert (len(values["nodes"]), len(values["edges"])) == (4, 3)
    code, out, _ = shell("history", family)
    assert "m.safetensors" in out
    assert "← a.safetensors, b.safetensors, base.safetensors (base)" in out


def test_where_none_does_nothing_is_written_unless_forced(shell, family):
    impossible = words(family, 1.0, 1.0, tries=10)
    code, out, err = shell(*impossible)
    assert code == 1, err
    assert "No merge was found that meets every floor" in out
    assert "wrote nothing" in out
    assert not (family / "m.safetensors").exists()
    code, out, _ = shell(*impossible, "--force")
    assert code == 1
    assert "wrote" in out
    assert (family / "m.safetensors").exists()


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        ("a=a.npz", "keep must be NAME=DATA:FLOOR"),
        ("a.npz:0.9", "keep must be NAME=DATA:FLOOR"),
        ("a=a.npz:1.5", "the floor of a must lie above 0 and be at most 1"),
        ("a=a.npz:0.9:-1", "the priority of a must be above 0"),
        ("a=missing.npz:0.9", "there is none"),
        ("a=wide.npz:0.9", "shape (7,) of a"),
        ("a=labels.npz:0.9", "a: labels must lie in 0 … 4"),
        ("a=few.npz:0.9", "at least 20 examples"),
    ],
)
def test_an_impossible_keep_is_one_line(shell, family, monkeypatch, keep, says):
    monkeypatch.chdir(family)
    np.savez("wide.npz", x=np.zeros((30, 7), np.float32), y=np.arange(30) % 5)
    np.savez("labels.npz", x=np.zeros((30, 1, 4, 4), np.float32), y=np.arange(30))
    np.savez("few.npz", x=np.zeros((10, 1, 4, 4), np.float32), y=np.arange(10) % 5)
    # The network's shape must come from somewhere that is right: the second wish is.
    first = () if "wide" not in keep else ("--keep", "b=b.npz:0.5")
    code, out, err = shell(
        "merge", "a.safetensors", "b.safetensors", "--model", MODEL, *first, "--keep", keep, "-o", "m.pt"
    )
    assert code == 2, (out, err)
    assert says in err
    assert err.splitlines()[-1].startswith("isthmus: ")
    assert not (family / "m.pt").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--keep", "a=a.npz:0.9"), "named once, got a twice"),
        (("--method", "ties"), "--method must be left out"),
        (("--density", "0.5"), "--density must be left out"),
        (("--expert", "a=c.safetensors"), "expert must be NAME=MODEL"),
        (("--expert", "z=a.safetensors"), "expert must be NAME=MODEL"),
        (("--tries", "2"), "tries must be at least 3"),
    ],
)
def test_options_that_do_not_go_with_keep(shell, family, monkeypatch, more, says):
    monkeypatch.chdir(family)
    given = ("merge", "a.safetensors", "b.safetensors", "--model", MODEL, "--keep", "a=a.npz:0.9", "-o", "m.pt")
    code, _, err = shell(*given, *more)
    assert code == 2
    assert says in err
    code, _, err = shell("merge", "a.safetensors", "b.safetensors", "--keep", "a=a.npz:0.9", "-o", "m.pt")
    assert (code, "give --model" in err) == (2, True)
    code, _, err = shell("merge", "a.safetensors", "b.safetensors", "--force", "-o", "m.pt")
    assert (code, "belong to --keep" in err) == (2, True)


def test_other_merges_record_their_origin_too(shell, family):
    a, b = family / "a.safetensors", family / "b.safetensors"
    assert shell("merge", a, b, "-o", family / "mean.safetensors")[0] == 0
    assert shell("merge", a, b, "-m", "uniform_soup", "-o", family / "soup.pt")[0] == 0
    code, _, err = shell("merge", a, b, "-o", family / "folder")
    assert code == 0, err
    code, out, _ = shell("history", family, "--json")
    found = json.loads(out)
    made = {node["name"]: node for node in found["nodes"] if node["lineage"]}
    # One content: the streamed mean, the same in a folder, and the soup of two.
    files = [name for node in made.values() for name in node["files"]]
    assert sorted(name.rpartition("/")[2] for name in files) == ["mean.safetensors", "model.safetensors", "soup.pt"]
    assert {edge["role"] for edge in found["edges"]} == {"model"}


def test_a_history_of_nothing(shell, tmp_path):
    code, _, err = shell("history", tmp_path)
    assert code == 2
    assert "at least one checkpoint" in err
