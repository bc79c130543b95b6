"""From words in a shell to networks, checkpoints and data. Slow libraries are imported inside the functions."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from isthmus.core.network import Network
    from isthmus.core.objective import Objective
    from isthmus.core.symmetry import Symmetry
    from isthmus.core.weights import Weights
    from isthmus.train import Recipe
    from isthmus.zoo.data import Data

_LONG = 28  # letters of a name, beyond which tables wrap it and charts shrink for it
_IN_CACHE = re.compile(r"^.*/models--([^/]+)/snapshots/[0-9a-f]+$")


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Checkpoints of one model with the data they are measured on, all on one device."""

    module: torch.nn.Module
    network: Network
    names: tuple[str, ...]
    solutions: list[Weights]
    data: Data
    objective: Objective

    @functools.cached_property
    def training(self) -> Objective:
        """The same loss on the training examples."""
        return objective(self.network, self.data, split="train")

    @functools.cached_property
    def symmetry(self) -> Symmetry:
        """The permutations of the module's hidden units."""
        import isthmus.discover as discovery

        return discovery.discover(self.module, self.data.train_inputs[:2])


def case(
    checkpoints: Sequence[str],
    *,
    model: str,
    data: str,
    data_dir: str | None = None,
    examples: int | None = None,
    split: str = "test",
    device: str = "auto",
    unsafe_pickle: bool = False,
    least: int = 1,
    finite: bool = True,
) -> Case:
    """Everything that a command measures on, checked before the work begins.

    Checkpoints that diverged are refused, unless ``finite`` is off: then it is the study that leaves them out.

    Raises:
        IsthmusError: the first thing that is wrong.
    """
    from isthmus.core.errors import SettingError
    from isthmus.core.network import Network
    from isthmus.core.weights import to
    from isthmus.zoo.text import suited

    if split not in ("test", "train"):
        raise SettingError(f"split must be test or train, got {split}")
    checkpoints = expanded(checkpoints)
    if len(checkpoints) < least:
        raise SettingError(f"this needs at least {least} checkpoints, got {len(checkpoints)}")
    where = found_device(device)
    found = found_data(data, data_dir, examples=examples)
    made = module(model, data=found)
    solutions = found_solutions(checkpoints, Network.of(made), unsafe_pickle=unsafe_pickle, finite=finite)
    found = suited(found, Network.of(made)).to(where)
    network = Network.of(made.to(where))
    return Case(
        module=made,
        network=network,
        names=brief(shortened(checkpoints)),
        solutions=[to(weights, device=where) for weights in solutions],
        data=found,
        objective=objective(network, found, split=split),
    )


def expanded(paths: Sequence[str]) -> list[str]:
    """Every folder of several checkpoints replaced by the checkpoints in it, in the order of their names.

    A folder with one checkpoint, a sharded one included, stays: it is that checkpoint. A folder without any is that of
    a ``Trainer`` if it holds folders ``checkpoint-STEP``, which are taken in the order of their steps. ``hf:NAME`` is
    the folder that Hugging Face's cache has of it.
    """
    from isthmus.core.folders import checkpoints_in, steps_in

    found: list[str] = []
    for path in map(here, paths):
        folder = Path(path)
        inside = checkpoints_in(folder) if folder.is_dir() else []
        several = inside if len(inside) > 1 else steps_in(folder) if folder.is_dir() and not inside else []
        found += [str(one) for one in several] or [path]
    return found


def here(path: str) -> str:
    """A path as it was given, or the folder that ``hf:NAME`` means."""
    if not path.startswith("hf:"):
        return path
    from isthmus.zoo.libraries import located

    return str(located(path))


def shortened(paths: Sequence[str]) -> tuple[str, ...]:
    """File names where they tell the checkpoints apart, else the whole paths; models of the hub by their names."""
    whole = [_IN_CACHE.sub(lambda found: "hf:" + found[1].replace("--", "/"), path) for path in paths]
    names = tuple(name if name.startswith("hf:") else Path(name).name for name in whole)
    return names if len(set(names)) == len(names) else tuple(paths)


def brief(names: Sequence[str]) -> tuple[str, ...]:
    """Names as tables and charts show them: long ones without what they all begin and end with.

    Example:
        >>> brief(["resnet-for-production-a-run-0.pt", "resnet-for-production-b-run-0.pt"])
        ('…a-run-0', '…b-run-0')
    """
    from isthmus.core.folders import TORCH_SUFFIXES

    if len(names) < 2 or max(map(len, names)) <= _LONG:
        return tuple(names)
    shared = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*names, strict=False))
    # Words stay whole: what is left out ends between two of them.
    begin = re.sub(r"[^-_./ ]*$", "", "".join(letters[0] for letters in shared))
    endings = {Path(name).suffix for name in names}
    ending = len(endings.pop()) if len(endings) == 1 and endings <= {".safetensors", *TORCH_SUFFIXES} else 0
    parts = [name[len(begin) : len(name) - ending] for name in names]
    return tuple(f"{'…' if begin else ''}{part}" for part in parts) if all(parts) else tuple(names)


def example(
    spec: str | None, made: torch.nn.Module, *, tokens: bool = False, seed: int = 0
) -> tuple[torch.Tensor, ...]:
    """Random inputs of the wanted shapes; by default an image batch, or token numbers for a language model.

    Raises:
        SettingError: the shapes cannot be read.
    """
    import torch

    from isthmus.core.randomness import child

    generator = child(seed, "example")
    wanted = shapes(spec)
    vocabulary = getattr(getattr(made, "config", None), "vocab_size", None)
    # Below the rows of every table; one of positions may be the shortest, which does no harm.
    tables = [part.num_embeddings for part in made.modules() if isinstance(part, torch.nn.Embedding)]
    if not wanted:
        own = getattr(made, "input_shape", (3, 224, 224))
        tokens = tokens or bool(vocabulary) or bool(tables and len(own) == 1)
        wanted = [(2, _length(made))] if tokens else [(2, *own)]
    return tuple(
        torch.randint(vocabulary or min(tables, default=100), shape, generator=generator)
        if tokens or (vocabulary and len(shape) == 2)  # examples and tokens; an image has more axes
        else torch.randn(shape, generator=generator)
        for shape in wanted
    )


def _length(made: torch.nn.Module) -> int:
    """Of an example of tokens: 16, or as long as a configuration allows."""
    config = getattr(made, "config", None)
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "max_seq_len")]
    return min([16, *(limit for limit in limits if isinstance(limit, int) and limit > 0)])


def keywords(made: torch.nn.Module) -> dict[str, bool]:
    """What a language model is called with to export it: no cache, which would be one more output for each layer."""
    import inspect

    return {"use_cache": False} if "use_cache" in inspect.signature(made.forward).parameters else {}


def shapes(spec: str | None) -> list[tuple[int, ...]]:
    """``1x3x224x224`` as a tuple; several shapes are separated by commas.

    Raises:
        SettingError: something else.
    """
    from isthmus.core.errors import SettingError

    if not spec:
        return []
    try:
        found = [tuple(int(part) for part in one.lower().split("x")) for one in spec.split(",")]
    except ValueError:
        raise SettingError(f"input must be a shape such as 1x3x224x224, got {spec!r}") from None
    if any(size < 1 for one in found for size in one):
        raise SettingError(f"input must have sizes of at least 1, got {spec!r}")
    return found


def module(spec: str, *, data: Data | None = None, shape: Sequence[int] | None = None) -> torch.nn.Module:
    """The module that ``--model`` names; networks of the zoo take their input shape and classes from the data."""
    from isthmus.zoo.models import resolve
    from isthmus.zoo.networks import is_network

    if not is_network(spec):
        return resolve(spec)
    settings: dict[str, Any] = {}
    if data is not None:
        settings = {"inputs": data.shape, "classes": data.classes}
    elif shape is not None:
        settings = {"inputs": tuple(shape)}
    return resolve(spec, **settings)


def found_solutions(
    paths: Sequence[str], network: Network, *, unsafe_pickle: bool, device: str = "cpu", finite: bool = True
) -> list[Weights]:
    """Checkpoints matched to the network; every misfit is named."""
    from isthmus.zoo.models import weights_of

    asked = {"unsafe_pickle": unsafe_pickle, "device": device, "finite": finite}
    return [weights_of(path, network.weights, **asked) for path in paths]


def found_data(spec: str, folder: str | None, *, examples: int | None = None) -> Data:
    """The data that ``--data`` names, limited to the first ``examples``."""
    from isthmus.zoo.data import load

    found = load(spec, folder)
    return found if examples is None else found.limited(examples)


def taken(found: Data, recipe: Recipe) -> Data:
    """The data in the type that a recipe's network takes: token numbers where it looks them up."""
    from isthmus.core.network import Network
    from isthmus.zoo.models import build
    from isthmus.zoo.text import suited

    return suited(found, Network.of(build(recipe).to(found.train_inputs.device)))


def objective(network: Network, found: Data, *, split: str, batch_size: int = 500) -> Objective:
    """The mean loss and error on one split; the network is tried on two examples first, to name what does not fit."""
    from isthmus.core.objective import Objective

    inputs, targets = (
        (found.test_inputs, found.test_targets) if split == "test" else (found.train_inputs, found.train_targets)
    )
    made = Objective(network, inputs, targets, batch_size=batch_size)
    made.tried(found.name)
    return made


def found_device(wanted: str) -> str:
    """``auto`` is a GPU if there is one.

    Raises:
        SettingError: there is no such device.
    """
    import torch

    from isthmus.core.errors import SettingError

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=wanted)
    except (RuntimeError, AssertionError) as problem:
        raise SettingError(f"device must be one of this machine, such as cpu, got {wanted}") from problem
    return wanted


def output_folder(path: str) -> Path:
    """A folder that can be written; found out before the work, not after it. What is written first makes it.

    Raises:
        IsthmusError: it cannot.
    """
    from isthmus.core.errors import UnwritableError
    from isthmus.core.files import check_writable

    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UnwritableError(f"{folder} must be writable as a folder, but it is a file; choose another output")
    check_writable(folder / "new file")
    return folder
