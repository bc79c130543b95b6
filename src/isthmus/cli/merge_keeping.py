"""``isthmus merge --keep``: from words to wishes, the search, and what is written and said of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isthmus.cli import console, inputs

if TYPE_CHECKING:
    import torch

    from isthmus.cli.merge_request import Request
    from isthmus.core.network import Network
    from isthmus.core.weights import Weights
    from isthmus.studies.continual.halves import Wish
    from isthmus.studies.continual.protection import Protected
    from isthmus.zoo.data import Data


def keeping(
    request: Request, *, keep: list[str], expert: list[str], tries: int, force: bool
) -> tuple[dict[str, Any], bool]:
    """Search for a merge that keeps what must be kept; whether it was written comes with what is told.

    Raises:
        IsthmusError: the first thing that is wrong, before the work.
    """
    from isthmus.cli.merge_memory import check_room, target_of
    from isthmus.core.errors import SettingError
    from isthmus.studies.continual.protection import protect

    paths = request.paths
    if request.model is None:
        raise SettingError("--keep measures merges on examples, so it needs the network: give --model")
    if len(paths) < 2:
        raise SettingError(f"--keep merges at least 2 models, got {len(paths)}")
    if tries < len(paths) + 1:
        raise SettingError(f"tries must be at least {len(paths) + 1}, one for each model and a merge, got {tries}")
    target = target_of(request.output)
    check_room(request)
    wishes = wishes_of(keep, expert, inputs.shortened(paths), request.data_dir)
    network, solutions, origin = _loaded(request, wishes[0])
    place = next(iter(network.weights.values())).device
    wishes = [dataclasses.replace(wish, examples=wish.examples.suited(network).to(place)) for wish in wishes]
    with console.progress("merge") as told:
        kept, weights = protect(
            network, solutions, wishes, base=origin, base_name=Path(request.base).name if request.base else "",
            tries=tries, seed=request.seed, progress=told,
        )  # fmt: skip
    written = kept.met or force
    if written:
        _write(weights, target, kept, request)
    where_to = str(target) if written else None
    return {"merge": {"output": where_to, "method": kept.best.family, "models": paths}, "kept": kept}, written


def _loaded(request: Request, wish: Wish) -> tuple[Network, dict[str, Weights], Weights | None]:
    """The network, what is merged by its names, and the base; all on one device."""
    from isthmus.core.checkpoint import load
    from isthmus.core.network import Network
    from isthmus.core.weights import to

    found = inputs.found_data(request.data, request.data_dir) if request.data else None
    where = inputs.found_device(request.device)
    first = load(request.paths[0], unsafe_pickle=request.unsafe_pickle)
    network = Network.of(_module(str(request.model), found, wish, first).to(where))

    def read(paths: list[str]) -> list[Weights]:
        solutions = inputs.found_solutions(paths, network, unsafe_pickle=request.unsafe_pickle)
        return [to(weights, device=where) for weights in solutions]

    solutions = dict(zip(inputs.shortened(request.paths), read(request.paths), strict=True))
    return network, solutions, read([request.base])[0] if request.base else None


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


def _write(weights: Weights, target: Path, kept: Protected, request: Request) -> None:
    from isthmus.cli.merge_memory import carried
    from isthmus.core.history import Lineage, save_with_lineage
    from isthmus.merge.parents import parents_of

    carried(request, target, weights)
    floors = {one.name: {"data": one.data, "fingerprint": one.fingerprint, "floor": one.floor} for one in kept.kept}
    save_with_lineage(
        weights, target,
        Lineage(
            "isthmus merge", parents_of(request.paths, request.base, unsafe_pickle=request.unsafe_pickle),
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
