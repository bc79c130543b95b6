"""From a word in a shell to a module: the user's own code, the zoo, torchvision, timm, Hugging Face configurations."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from isthmus.core.checkpoint import load
from isthmus.core.errors import CheckpointError, IsthmusError, SettingError, listed, near, raised
from isthmus.core.fitting import fit
from isthmus.core.randomness import child_seed
from isthmus.core.weights import Weights
from isthmus.zoo.libraries import builder, configuration, library, located, named_class
from isthmus.zoo.networks import NETWORKS, is_network, network


class Buildable(Protocol):
    """The part of a recipe that says which network is meant."""

    @property
    def network(self) -> str:
        """What :func:`resolve` takes."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the network takes."""
        ...

    @property
    def initialisation_seed(self) -> int:
        """The seed of the initial weights."""
        ...


def resolve(spec: str, *, seed: int = 0, **settings: Any) -> nn.Module:
    """Make the module that a specification names, with weights that depend on ``seed`` alone.

    Args:
        spec: ``package.module:function`` or ``path/to/file.py:function`` (called with ``settings``, must return a
            module), ``torchvision:NAME``, ``timm:NAME``, a folder with a ``config.json`` of Hugging Face or timm, that
            file, ``hf:NAME`` for one in Hugging Face's cache (random weights, nothing is downloaded), or a name of the
            zoo such as ``mlp-128x2`` or ``resnet20``.
        seed: the global generator is set to it while the module is built, and put back afterwards.
        settings: passed on, for example ``inputs=(1, 28, 28), classes=10`` for the zoo.

    Raises:
        SettingError: nothing of that name exists, or building it failed; one line.

    Example:
        >>> sum(p.numel() for p in resolve("mlp-16x1", inputs=(1, 8, 8)).parameters())
        1210
    """
    if is_network(spec):
        return network(spec, seed=seed, **settings)
    build = builder(spec)
    if build is None and ":" in spec:
        build = function(spec)
    if build is None:
        raise SettingError(_unknown(spec))
    with seeded(seed):
        try:
            module = build(**settings)
        except IsthmusError:
            raise
        except Exception as problem:
            raise SettingError(f"{spec} must return a module, but raised {raised(problem)}") from problem
    if not isinstance(module, nn.Module):
        raise SettingError(f"{spec} must return a torch.nn.Module, got {type(module).__name__}")
    return module


def build(recipe: Buildable) -> nn.Module:
    """The module that a recipe asks for, at its initialisation; what ``train`` takes as ``module``.

    Raises:
        SettingError: no such network, or settings that it does not take.
    """
    return resolve(recipe.network, seed=recipe.initialisation_seed, **recipe.settings)


def weights_of(
    path: str | Path,
    like: Weights,
    *,
    unsafe_pickle: bool = False,
    device: str | torch.device = "cpu",
    finite: bool = True,
) -> dict[str, Tensor]:
    """A checkpoint's weights under the names that its network has in this process.

    Folders of Hugging Face models may hold tensors under names that its library changes when it builds the module; for
    those that do not fit as they are, the library itself reads the folder (safetensors only, nothing is downloaded, no
    code of the folder is run).

    Args:
        path: what :func:`isthmus.core.checkpoint.load` takes, or ``hf:NAME`` for one in Hugging Face's cache.
        like: the network's own weights.
        unsafe_pickle: run pickles in full.
        device: where the tensors go.
        finite: also refuse NaN and infinities.

    Raises:
        CheckpointError: it cannot be read, or does not fit.
    """
    weights = load(located(str(path)), unsafe_pickle=unsafe_pickle, device=device)
    try:
        return fit(weights, like, what=str(path), finite=finite)
    except CheckpointError:
        folder = configuration(str(path))
        if folder is None:
            raise
        with contextlib.suppress(Exception):  # whatever goes wrong there, the misfit of the names is the better line
            transformers = library("transformers", str(path))
            with contextlib.redirect_stderr(io.StringIO()):  # a bar of theirs, for a moment's work
                config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
                module = (named_class(transformers, config) or transformers.AutoModel).from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype="auto"
                )
            found = {name: tensor.detach().to(device) for name, tensor in module.state_dict().items()}
            return fit(found, like, what=str(path), finite=finite)
        raise


def _unknown(spec: str) -> str:
    """Why a specification names no network, in one line."""
    path, kinds = Path(spec), "module:function, file.py:function, torchvision:NAME, timm:NAME, hf:NAME, a folder with "
    if spec.strip() and path.suffix == ".py" and path.is_file():
        return f"model must say which function of {spec} makes the network, as in {spec}:build"
    if spec.strip() and path.is_dir():
        return f"model must be a folder that holds a config.json, and {spec} holds none"
    return (
        f"model must be {kinds}config.json or one of {listed(NETWORKS, 20)}, got {spec if spec.strip() else repr(spec)}"
        + near(spec, NETWORKS, most=2)
    )


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Set the global CPU generator for other people's constructors, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(child_seed(seed, "initialisation"))
        yield


def function(spec: str, *, error: type[IsthmusError] = SettingError) -> Callable[..., Any]:
    """The user's function that ``module:function`` or ``path/to/file.py:function`` names.

    Raises:
        IsthmusError: of the kind ``error``; the module cannot be imported or has no such function.
    """
    place, _, name = spec.rpartition(":")
    try:
        module = _file(Path(place)) if place.endswith(".py") else _module(place)
    except FileNotFoundError:
        raise error(f"{spec}: there is no file {place}") from None
    except ModuleNotFoundError as problem:
        raise error(f"{spec} cannot be imported: there is no module named {problem.name}") from problem
    except BaseException as problem:
        if isinstance(problem, KeyboardInterrupt):
            raise
        reason = (str(problem).strip().splitlines() or ["no reason given"])[0]
        raise error(f"{spec} cannot be imported: {type(problem).__name__}: {reason}") from problem
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise error(f"{spec}: {place} has no function {name}; it has {listed(known) or 'none'}")
    return found


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let the user's code import what lies beside it, as it would when run from there."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _module(name: str) -> ModuleType:
    if not name:
        raise ModuleNotFoundError("no module was named", name="''")
    with _importable(Path.cwd()):
        return importlib.import_module(name)


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(path)
    # A name of its own, so that a user's models.py never stands in for another module.
    name = f"_isthmus_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    loaded = importlib.util.spec_from_file_location(name, path)
    assert loaded is not None  # a .py file always has a loader
    assert loaded.loader is not None
    module = importlib.util.module_from_spec(loaded)
    sys.modules[name] = module  # dataclasses and pickles look it up there
    try:
        with _importable(path.resolve().parent):
            loaded.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
