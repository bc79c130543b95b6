"""The README's example runs as it stands, and says what it promises."""

import re
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_example_runs(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    names: dict = {}
    exec(compile(example, "README.md", "exec"), names)
    assert "loss barrier" in capsys.readouterr().out
    assert names["before"] > 5 * names["after"] >= 0
    assert not names["match"].permutation.is_identity


def test_the_two_commands_are_there():
    text = README.read_text(encoding="utf-8")
    assert "pip install -c constraints.txt . && isthmus demo\n" in text
    assert "pip install -c constraints.txt -e '.[test]' && pytest\n" in text
