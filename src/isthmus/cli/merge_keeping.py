"""``isthmus merge --keep``: from words to wishes, the search, and what is written and said of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.cli import console, inputs

if TYPE_CHECKING:
    import torch

    from isthmus.core.weights import Weights
    from isthmus.studies.continual.halves import Wish
    from isthmus.zoo.data import Data


def keeping(
    paths: list[str],
    output: Path,
    *,
    keep: list[str],
    expert: list[str],
    tries: int,
    force: bool,
    base: str | None,
    model: str | None,
    data: str | None,
    data_dir: str | None,
    seed: int,
    device: str,
    unsafe_pickle: bool,
) -> tuple[dict[str, Any], bool]:
    """Search for a merge that keeps what must be kept; whether it was written comes with what is told.

    Raises:
        IsthmusError: the first thing that is wrong, before the work.
    """
    from isthmus.cli.merge_memory import target_of
    from isthmus.core.checkpoint import load
    from isthmus.core.errors import SettingError
    from isthmus.core.network import Network
    from isthmus.core.weights import to
    from isthmus.studies.continual.protection import protect

    if model is None:
        raise SettingError("--keep measures merges on examples, so it needs the network: give --model")
    if len(paths) < 2:
        raise SettingError(f"--keep merges at least 2 models, got {len(paths)}")
    if tries < len(paths) + 1:
        raise SettingError(f"tries must be at least {len(paths) + 1}, one for each model and a merge, got {tries}")
    target = target_of(output)
    names = inputs.shortened(paths)
    wishes = wishes_of(keep, expert, names, data_dir)
    raw = [load(path, unsafe_pickle=unsafe_pickle) for path in paths]
    found = inputs.found_data(data, data_dir) if data else None
    where = inputs.found_device(device)
    network = Network.of(_module(model, found, wishes[0], raw[0]).to(where))
    paired = zip(names, inputs.found_solutions(paths, network, unsafe_pickle=unsafe_pickle), strict=True)
    solutions = {name: to(weights, device=where) for name, weights in paired}
    origin = None
    if base is not None:
        origin = to(inputs.found_solutions([base], network, unsafe_pickle=unsafe_pickle)[0], device=where)
    wishes = [dataclasses.replace(wish, examples=wish.examples.suited(network).to(where)) for wish in wishes]
    with console.progress("merge") as told:
        kept, weights = protect(
            network, solutions, wishes, base=origin, base_name=Path(base).name if base else "", tries=tries, seed=seed,
            progress=told,
        )  # fmt: skip
    written = kept.met or force
    if written:
        _write(weights, target, kept, paths, base, unsafe_pickle=unsafe_pickle)
    where_to = str(target) if written else None
    return {"merge": {"output": where_to, "method": kept.best.family, "models": paths}, "kept": kept}, written


def wishes_of(keep: list[str], expert: list[str], names: tuple[str, ...], data_dir: str | None) -> list[Wish]:
    """``NAME=DATA:FLOOR`` or ``NAME=DATA:FLOOR:PRIORITY``, with the models that ``NAME=MODEL`` calls experts.

    Raises:
        SettingError: another form, an impossible floor, or a name twice.
        DataError: the examples cannot be read.
    """
    from isthmus.core.errors import SettingError
    from isthmus.merge.front import Aim
    from isthmus.studies.continual.halves import Wish
    from isthmus.zoo.examples import load_examples

    parts = [_parts(entry) for entry in keep]
    known = [name for name, *_ in parts]
    if twice := [name for place, name in enumerate(known) if name in known[:place]]:
        raise SettingError(f"each capability must be named once, got {twice[0]} twice")
    for name, _, floor, priority in parts:
        Aim(name, floor, 1.0 if priority is None else priority)  # refused before large files are read
    experts = {}
    for entry in expert:
        name, _, path = entry.partition("=")
        short = next((n for n in names if path and (n == path or Path(path).name == n)), None)
        if name not in known or short is None:
            raise SettingError(
                f"expert must be NAME=MODEL, a capability ({', '.join(known)}) and one of the models "
                f"({', '.join(names)}), got {entry!r}"
            )
        experts[name] = short
    return [
        Wish(name, load_examples(spec, data_dir), floor, priority, experts.get(name))
        for name, spec, floor, priority in parts
    ]


def _parts(entry: str) -> tuple[str, str, float, float | None]:
    from isthmus.core.errors import SettingError

    name, equals, rest = entry.partition("=")
    pieces = rest.split(":")
    numbers: list[float] = []
    while len(pieces) > 1 and len(numbers) < 2 and (value := _number(pieces[-1])) is not None:
        numbers.insert(0, value)
        pieces.pop()
    spec = ":".join(pieces)
    if not equals or not name.strip() or not spec or not numbers:
        raise SettingError(
            f"keep must be NAME=DATA:FLOOR or NAME=DATA:FLOOR:PRIORITY, such as signs=signs.npz:0.98, got {entry!r}"
        )
    return name.strip(), spec, numbers[0], numbers[1] if len(numbers) > 1 else None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _module(model: str, data: Data | None, wish: Wish, weights: Weights) -> torch.nn.Module:
    """The network; one of the zoo learns its input's shape from the examples, and its classes from the checkpoint."""
    from isthmus.zoo.models import resolve
    from isthmus.zoo.networks import is_network

    if data is not None or not is_network(model):
        return inputs.module(model, data=data)
    head = [tensor for tensor in weights.values() if tensor.is_floating_point() and tensor.dim()]
    return resolve(model, inputs=tuple(wish.examples.inputs.shape[1:]), classes=len(head[-1]))


def _write(weights: Any, target: Path, kept: Any, paths: list[str], base: str | None, *, unsafe_pickle: bool) -> None:
    from isthmus.core.history import Descent, save_with_descent
    from isthmus.merge.parents import parents_of

    floors = {one.name: {"data": one.data, "fingerprint": one.fingerprint, "floor": one.floor} for one in kept.kept}
    save_with_descent(
        weights, target,
        Descent(
            "isthmus merge", parents_of(paths, base, unsafe_pickle=unsafe_pickle),
            {"method": kept.best.family, "settings": kept.best.settings, "keep": floors, "merges": kept.merges,
             "seed": kept.seed},
            capabilities={one.name: one.verification.merged for one in kept.kept},
            measures={f"retained {one.name}": one.verification.retained.estimate for one in kept.kept},
        ),
        metadata={"made_by": "isthmus merge", "method": kept.best.family},
    )  # fmt: skip


def show(values: dict[str, Any]) -> None:
    """What became of every wish, and the answer."""
    from isthmus.report.protection import kept_rows
    from isthmus.report.section import section
    from isthmus.report.words import words_for

    words = words_for("en")
    console.table(*kept_rows(values, words), title=words("protected.table"))
    part = section(values)
    for line in [*part.text, part.headline]:
        console.say(line)
