"""Text as data for small language models: characters as tokens, each example a stretch and the same one place on."""

from __future__ import annotations

from pathlib import Path

import torch

from isthmus.core.errors import DataError
from isthmus.core.network import Network
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


def suited(data: Data, network: Network) -> Data:
    """The same examples in the type that a network takes: token numbers where it looks them up.

    A file of whole numbers may hold pixels or tokens, and only the network knows which.

    Cost:
        One or two calls of the network on two examples.

    Example:
        >>> import torch
        >>> from isthmus.core.network import Network
        >>> tokens, labels = torch.tensor([[0.0, 2.0], [1.0, 0.0]]), torch.tensor([0, 1])
        >>> reader = torch.nn.Sequential(torch.nn.Embedding(3, 4), torch.nn.Flatten(), torch.nn.Linear(8, 2))
        >>> suited(Data(tokens, labels, tokens, labels, 2), Network.of(reader)).train_inputs.dtype
        torch.int64
    """
    inputs = as_taken(data.train_inputs, network)
    if inputs is data.train_inputs:
        return data
    _ = data.fingerprint  # made before the type changes, so that it stays the one of the file
    return data.with_tensors(train_inputs=inputs, test_inputs=data.test_inputs.to(inputs.dtype))


def as_taken(inputs: torch.Tensor, network: Network) -> torch.Tensor:
    """Inputs that a network refuses as real numbers, as whole ones; what it takes as it is stays as it is."""
    few = inputs[:2]
    if not few.is_floating_point() or not torch.equal(few, few.round()) or _taken(network, few):
        return inputs
    looks_up = any(isinstance(part, torch.nn.Embedding) for part in network.modules().values())
    if not looks_up and not _taken(network, few.long()):
        return inputs
    return inputs.long() if torch.equal(inputs, inputs.round()) else inputs


@torch.no_grad()
def _taken(network: Network, inputs: torch.Tensor) -> bool:
    weights = network.weights
    try:
        network(weights, inputs.to(next(iter(weights.values())).device))
    except (RuntimeError, TypeError, IndexError, ValueError):
        return False
    return True
