"""Downloads: weights, runs and tables as files with names that every system takes."""

import json

from tests.web.sites import key

from isthmus.core.checkpoint import metadata_of
from isthmus.core.history import KEY
from isthmus.web.downloads import _plain


def test_downloads(site, tmp_path):
    from safetensors.torch import load

    answer = site.ask(f"/runs/{key(3)}/weights/final")
    assert answer.headers["content-disposition"] == f'attachment; filename="{key(3)[:12]}-final.safetensors"'
    assert load(answer.body)["layer.weight"].unique().tolist() == [3.0]
    (tmp_path / "taken.safetensors").write_bytes(answer.body)
    assert json.loads(metadata_of(tmp_path / "taken.safetensors")[KEY])["recipe"]["network"] == "mlp-64x2"
    assert site.ask(f"/runs/{key(3)}/run.json").json()["recipe"]["network"] == "mlp-64x2"
    rows = [json.loads(line) for line in site.ask(f"/table.jsonl?run={key(3)}").text.splitlines()]
    assert {row["column"] for row in rows} == {"training_loss", "test_error", "loss_barrier", "error_barrier"}
    table = site.ask("/table.csv?q=mlp").text
    assert table.startswith("\ufeffkey,status,measure")
    assert table.count("\r\n") == 1 + 2 + 5 * 4  # a heading, two numbers of the first run, four of each other
    assert site.ask("/table.csv?study=none").status == 400


def test_a_downloaded_file_has_a_name_that_every_system_takes():
    assert _plain("step-4_b") == "step-4_b"
    assert _plain('größe "4"/..\n') == "gr--e--4-----"
    assert len(_plain("x" * 300)) == 60
