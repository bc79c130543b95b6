"""The study files that come with the project can be run as they are, and their answers stand beside them."""

import re
import tomllib
from pathlib import Path

import pytest

from isthmus.studies import Study, outlook, parse_design, read_design

FOLDER = Path(__file__).parents[3] / "studies"
FILES = sorted(FOLDER.glob("*.toml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_study_has_claims_and_an_answer_and_takes_minutes(file):
    study = Study.of(read_design(file))
    assert study.design.name == file.stem
    assert study.design.question
    assert study.design.claims
    # A core does some thousand steps of such networks a second.
    assert outlook(study, None).steps < 500_000
    answers = (FOLDER / "README.md").read_text().split(f"## `{file.name}`")[1].split("\n## ")[0]
    for claim in study.design.claims:
        assert re.search(r"\*\*(supported|contradicted|undecided)\*\*: " + re.escape(claim.words), answers)
    for cell in study.cells:
        assert "| " + cell.name.replace("settings.", "").replace("=", " ") + " |" in answers


def test_there_are_all_of_them():
    assert len(FILES) >= 9


def test_the_readme_s_own_example_is_a_study():
    example = (FOLDER / "README.md").read_text().split("```toml\n")[1].split("```")[0]
    study = Study.of(parse_design(tomllib.loads(example)))
    assert len(study.cells) == 8
