"""The glossary says in Japanese what the pages say, and the pages use one word for one idea."""

from __future__ import annotations

import re

import pytest
from tests.docs.pages import ROOT

from isthmus.report.words import subjects

# words of the glossary that no page needs
ONLY_HERE = {"P(q)", "兄弟テンソル", "レプリカ", "分岐時刻", "分散の崩壊", "定常則", "対称性", "軌跡"}
#: what must not stand for an idea that has another word
NEVER = {"訓練": "学習", "誤差障壁": "誤り率障壁", "併合": "マージ", "精度": "正解率"}


def japanese() -> str:
    return "\n".join(text for texts in subjects("ja").values() for text in texts.values())


def terms() -> list[str]:
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \|", (ROOT / "docs" / "glossary.md").read_text("utf-8"), re.MULTILINE)
    cells = [row.strip() for row in rows if row.strip() not in ("日本語", "---")]
    return [word for cell in cells for word in re.split(r"[、（）]", cell) if word]


def test_the_terms_of_the_glossary_are_those_of_the_pages():
    assert len(terms()) > 90
    text = japanese()
    assert [word for word in terms() if word not in text and word not in ONLY_HERE] == []


@pytest.mark.parametrize(("wrong", "right"), NEVER.items())
def test_one_word_for_one_idea(wrong, right):
    assert wrong not in japanese(), f"the word is {right}"
