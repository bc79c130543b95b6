"""What a user reads of a problem: one line, whatever was raised."""

import pytest

from isthmus.core.errors import first_line, raised


@pytest.mark.parametrize(
    ("text", "most", "said"), [("", None, "ValueError"), ("\n a\nb", None, "a"), ("abcdef", 3, "abc")]
)
def test_the_first_line_of_a_problem_is_never_empty(text, most, said):
    assert first_line(ValueError(text), most) == said


def test_what_was_raised_is_told_with_what_it_was_raised_from():
    problem = ImportError("no LlamaConfig\nread the manual")
    problem.__cause__ = ValueError("between")
    problem.__cause__.__cause__ = RuntimeError("operator missing\nat line 3")
    assert raised(problem) == "ImportError: no LlamaConfig (from RuntimeError: operator missing)"
