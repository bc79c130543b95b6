"""Text as data for small language models: characters as tokens, each example a stretch and the same one place on."""

from __future__ import annotations

from pathlib import Path

import torch

from isthmus.core.errors import DataError
from isthmus.zoo.data import Data

_LEAST = 2  # stretches: one to train on and one to test on


def characters(path: str | Path, *, length: int = 64, stride: int | None = None, held_out: float = 0.1) -> Data:
    """A text file as examples of ``length`` characters whose targets are the characters that follow.

    Tokens are the file's characters, numbered in the order of their code points. The end of the text is held out, so
    that no test example overlaps with a training example.

    Args:
        path: a file in UTF-8.
        length: characters in an example.
        stride: from the start of one training example to the next; ``length`` by default, so that every character is
            predicted once in an epoch. Test examples never overlap.
        held_out: the share of the text, its end, that tests.

    Returns:
        Inputs and targets of shape (examples, length), token numbers in int64; ``classes`` is the number of tokens.

    Raises:
        DataError: the file is missing, no text, or too short for two examples.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "text.txt"
        >>> _ = file.write_text("to be or not to be, that is the question")
        >>> data = characters(file, length=4)
        >>> data.train_inputs.shape, bool((data.train_inputs[0, 1:] == data.train_targets[0, :-1]).all())
        (torch.Size([8, 4]), True)
    """
    if length < 1 or (stride is not None and stride < 1):
        raise DataError(f"length and stride of text must be at least 1 character, got {length} and {stride}")
    if not 0 < held_out < 1:
        raise DataError(f"the share of text held out must lie between 0 and 1, got {held_out:g}")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} must be a text file, but there is none") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(f"{path} must be a readable text file in UTF-8: {problem}") from None
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    tokens = torch.tensor([alphabet[character] for character in text], dtype=torch.int64)
    edge = len(tokens) - max(length + 1, round(held_out * len(tokens)))
    if edge < length + 1:
        needed = _LEAST * (length + 1)
        raise DataError(f"{path} must hold at least {needed} characters for examples of {length}, got {len(tokens)}")
    train = tokens[:edge].unfold(0, length + 1, stride or length)
    test = tokens[edge:].unfold(0, length + 1, length)
    parts = (part.contiguous() for rows in (train, test) for part in (rows[:, :-1], rows[:, 1:]))
    return Data(*parts, classes=len(alphabet), name=str(path))
