"""Every error that a user can cause: one line that says what must hold, what was given and what to do."""

from __future__ import annotations

from collections.abc import Iterable


class IsthmusError(ValueError):
    """Something about the input is wrong; the message is one line meant for the user."""


class WeightsError(IsthmusError):
    """Weights do not fit each other or their network."""


class CheckpointError(IsthmusError):
    """A file of weights cannot be read or written."""


class SymmetryError(IsthmusError):
    """A symmetry is wrong for a network, or cannot be found."""


class DataError(IsthmusError):
    """Data have the wrong shape, type or range."""


class SettingError(IsthmusError):
    """A setting is out of its range."""


class UnwritableError(IsthmusError):
    """A place cannot be written to, or its disk is full; what can be read there can still be read."""


def first_line(problem: BaseException, most: int | None = None) -> str:
    """What went wrong, in one line of at most ``most`` characters: the message's first, or the kind of problem."""
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0][:most]


def raised(problem: BaseException) -> str:
    """What somebody else's code raised, in one line: its kind and message, and what it was raised from.

    Example:
        >>> raised(ValueError("no such width"))
        'ValueError: no such width'
    """
    said = f"{type(problem).__name__}: {first_line(problem)}"
    first = problem
    while first.__cause__ is not None:
        first = first.__cause__
    return said if first is problem else f"{said} (from {type(first).__name__}: {first_line(first)})"


def listed(names: object, most: int = 5) -> str:
    """Names for an error line: the first few, then how many more there are.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    sequence = [_one_line(name) for name in names]  # type: ignore[attr-defined]
    if len(sequence) <= most:
        return ", ".join(sequence)
    return f"{', '.join(sequence[:most])} and {len(sequence) - most} more"


def _one_line(name: object) -> str:
    """A name with what cannot be printed (line breaks, bytes of no encoding) written out."""
    text = str(name)
    return text if text.isprintable() else repr(text)[1:-1]


def near(word: str, known: Iterable[object], *, most: int = 1) -> str:
    """What ends a message about an unknown name: the known ones that are near, whatever their case, or nothing.

    Example:
        >>> near("MPL-64x1", ["mlp-64x1", "resnet20"])
        '; did you mean mlp-64x1?'
    """
    import difflib

    lowered: dict[str, str] = {}
    for name in map(str, known):
        lowered.setdefault(name.lower(), name)
    found = [lowered[name] for name in difflib.get_close_matches(str(word).lower(), lowered, n=most)]
    return f"; did you mean {' or '.join(found)}?" if found else ""
