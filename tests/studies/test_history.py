"""The graph behind checkpoints: who was made from whom, also where files are moved, missing, equal or lie."""

import dataclasses
import json

import pytest
import torch

from isthmus.core.checkpoint import load, save
from isthmus.core.errors import CheckpointError
from isthmus.core.history import KEY, Lineage, Parent, beside, content_of, save_with_lineage
from isthmus.core.record import to_json
from isthmus.report.assemble import page_of_results
from isthmus.report.history import history_rows
from isthmus.report.page import render
from isthmus.report.section import section
from isthmus.report.words import words_for
from isthmus.studies.history import history


def weights(value):
    return {"w": torch.full((3,), float(value))}


def child(folder, name, value, parents, **told):
    of = tuple(Parent(content_of(weights(parent)), f"{parent}.safetensors") for parent in parents)
    return save_with_lineage(weights(value), folder / name, Lineage("isthmus merge", of, **told))


@pytest.fixture
def line(tmp_path):
    """1 and 2 are roots, 3 = 1 + 2, 4 = 3 + 9, of which there is no file."""
    for value in (1, 2):
        save_with_lineage(weights(value), tmp_path / f"{value}.safetensors", Lineage("isthmus train"))
    child(tmp_path, "3.safetensors", 3, [1, 2], capabilities={"digits": 0.9})
    (tmp_path / "later").mkdir()
    child(tmp_path / "later", "4.pt", 4, [3, 9])
    return tmp_path


def test_the_graph_of_a_folder(line):
    found = history([line])
    by_name = {node.name: node for node in found.nodes}
    assert {name: node.generation for name, node in by_name.items()} == {
        "1.safetensors": 0, "2.safetensors": 0, "9.safetensors": 0, "3.safetensors": 1, "4.pt": 2,
    }  # fmt: skip
    assert [node.name for node in found.nodes if not node.known] == ["9.safetensors"]
    of = {node.content: node.name for node in found.nodes}
    assert {(of[edge.parent], of[edge.child]) for edge in found.edges} == {
        ("1.safetensors", "3.safetensors"), ("2.safetensors", "3.safetensors"), ("3.safetensors", "4.pt"),
        ("9.safetensors", "4.pt"),
    }  # fmt: skip
    assert by_name["3.safetensors"].lineage.capabilities == {"digits": 0.9}
    for told in ("Checkpoints: 4.", "Generations: 3.", "several others: 2.", "without a file: 1."):
        assert told in section(found).headline
    assert section(found, language="ja").headline


def test_files_may_be_moved_renamed_and_copied(line):
    (line / "1.safetensors").rename(line / "later" / "one.safetensors")
    save(load(line / "2.safetensors"), line / "copy.safetensors")
    found = history([line])
    by_content = {node.content: node for node in found.nodes}
    assert by_content[content_of(weights(1))].name == "one.safetensors"
    assert sorted(name.rpartition("/")[2] for name in by_content[content_of(weights(2))].files) == [
        "2.safetensors", "copy.safetensors"
    ]  # fmt: skip
    assert len(found.edges) == 4


def test_a_merge_that_is_its_parent_and_a_record_of_other_weights(tmp_path):
    child(tmp_path, "same.safetensors", 1, [1, 2])
    other = child(tmp_path, "other.safetensors", 3, [2])
    save(weights(5), tmp_path / "plain.safetensors")
    beside(other).rename(beside(tmp_path / "plain.safetensors"))
    found = {node.name: node for node in history([tmp_path]).nodes}
    assert found["same.safetensors"].notes == ("equals_parent",)
    assert found["plain.safetensors"].notes == ("other_content",)
    assert found["plain.safetensors"].lineage is None
    assert found["other.safetensors"].notes == ()


def test_all_that_is_known_against_a_set_of_weights_stands_in_its_row(tmp_path):
    child(tmp_path, "same.safetensors", 1, [1, 2])
    values, words = history([tmp_path]).to_dict(), words_for("en")
    columns, rows = history_rows(values, words)
    notes = {row[0]: row[columns.index(words("history.notes"))] for row in rows}
    assert notes["same.safetensors"] == words("history.note.equals_parent")
    assert sorted(map(str, notes.values())) == sorted([words("history.note.equals_parent"), words("history.unknown")])
    for node in values["nodes"]:
        node["notes"], node["known"] = ["no_record", "other_content"], False
    both = "; ".join(words(f"history.{name}") for name in ("note.no_record", "note.other_content", "unknown"))
    assert {row[columns.index(words("history.notes"))] for row in history_rows(values, words)[1]} == {both}


def test_hostile_records_neither_hang_nor_reach_the_page(tmp_path):
    """Records that claim a circle, with markup for names."""
    ids = [content_of(weights(value)) for value in range(6)]
    for value in range(6):
        name = "<script>alert(1)</script>\x1b[31m" * 3
        lie = Lineage(name, tuple(Parent(one, name) for one in [*ids, "sha256:" + "a" * 64]), {"x<y": "<b>"})
        save(weights(value), tmp_path / f"{value}.safetensors", metadata={KEY: to_json(lie)})
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 40)
    found = history([tmp_path])
    assert len(found.nodes) == 7
    assert [name for name, _ in found.unread] == ["broken.safetensors"]
    values = found.to_dict()
    page = render(page_of_results([("history", values)]), interactive=False)
    assert "<script>alert" not in page
    assert "\x1b" not in page
    assert "\x1b" not in json.dumps(values, ensure_ascii=False)


def test_a_record_in_a_folder_is_that_of_the_checkpoint_in_it(tmp_path):
    file = child(tmp_path, "model.safetensors", 3, [1, 2])
    (tmp_path / "history.json").write_text(beside(file).read_text())
    beside(file).unlink()
    save(weights(3), file)
    node = next(node for node in history([tmp_path]).nodes if node.known)
    assert node.name == f"{tmp_path.name}/model.safetensors"
    assert node.lineage is not None
    save(weights(4), file)
    assert next(node for node in history([file]).nodes if node.known).notes == ("no_record",)


def test_names_that_two_have_are_told_with_their_folders(tmp_path):
    for folder, value in (("one", 1), ("two", 2)):
        (tmp_path / folder).mkdir()
        save(weights(value), tmp_path / folder / "a.safetensors")
    assert [node.name for node in history([tmp_path]).nodes] == ["one/a.safetensors", "two/a.safetensors"]


def test_nothing_to_read(tmp_path):
    with pytest.raises(CheckpointError, match="nothing at"):
        history([tmp_path / "missing"])
    with pytest.raises(CheckpointError, match="at least one checkpoint"):
        history([tmp_path])
    (tmp_path / "a.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="readable"):
        history([tmp_path])


def test_progress_is_told_for_every_file(line):
    heard = []
    history([line], progress=lambda done, total, label="": heard.append((done, total, label)))
    assert heard[-1][:2] == (4, 4)
    assert dataclasses.is_dataclass(history([line / "3.safetensors"]).nodes[0])
