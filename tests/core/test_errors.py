"""What a user reads of a problem: one line, whatever was raised."""

import pytest

from isthmus.core.errors import first_line


@pytest.mark.parametrize(
    ("text", "most", "said"), [("", None, "ValueError"), ("\n a\nb", None, "a"), ("abcdef", 3, "abc")]
)
def test_the_first_line_of_a_problem_is_never_empty(text, most, said):
    assert first_line(ValueError(text), most) == said
