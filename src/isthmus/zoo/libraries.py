"""Networks of other libraries by name: torchvision, timm, and configurations of Hugging Face; nothing is downloaded."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from isthmus.core.errors import CheckpointError, SettingError, first_line, near

HUB = "hf:"
_NOT_HUB = ("torchvision", "timm")


def builder(spec: str) -> Callable[..., nn.Module] | None:
    """What builds the network that a specification names with random weights; ``None`` if it is no library's.

    Raises:
        SettingError: the library is missing or broken, or has no such network.
    """
    library, _, name = spec.partition(":")
    if library in _NOT_HUB:
        return _named(library, name)
    folder = configuration(spec)
    return None if folder is None else _configured(folder, spec)


def library(name: str, spec: str) -> Any:
    """An optional library; one that is installed but broken is told apart from one that is missing.

    Raises:
        SettingError: it is either.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        package = name.partition(".")[0]
        raise SettingError(f"{spec} needs {package}, which is not installed; pip install {package}") from None
    except Exception as problem:  # compiled extensions fail in their own ways
        reason = first_line(problem)
        raise SettingError(f"{spec} needs {name}, which cannot be imported: {reason}") from problem


def configuration(spec: str) -> Path | None:
    """The folder of a configuration that a specification names: the folder, the file in it, or ``hf:NAME``."""
    path = located(spec)
    if path.name == "config.json" and path.is_file():
        return path.parent
    return path if (path / "config.json").is_file() else None


def located(spec: str) -> Path:
    """A path as it is, and ``hf:NAME`` as the folder in which the Hugging Face hub's cache keeps that model.

    Args:
        spec: a path, ``hf:owner/name`` or ``hf:owner/name@revision``.

    Raises:
        CheckpointError: that model is not in the cache, which is never filled from here.
    """
    if not spec.startswith(HUB):
        return Path(spec)
    name, _, revision = spec.removeprefix(HUB).partition("@")
    hub = library("huggingface_hub", spec)
    try:
        return Path(hub.snapshot_download(name, revision=revision or None, local_files_only=True))
    except Exception as problem:
        raise CheckpointError(
            f"{spec} must be in Hugging Face's cache on this machine, since nothing is downloaded, and is not; run "
            f"`hf download {name or 'NAME'}` once, or give a folder"
        ) from problem


def named_class(transformers: Any, config: Any) -> Any:
    """The class that a configuration names, if the library has it."""
    return next((getattr(transformers, n) for n in config.architectures or [] if hasattr(transformers, n)), None)


def _named(origin: str, name: str) -> Callable[..., nn.Module]:
    package = library("torchvision.models" if origin == "torchvision" else origin, f"{origin}:{name}")
    known = package.list_models()
    if origin == "torchvision":
        make = lambda **settings: package.get_model(name, weights=None, **settings)  # noqa: E731
    else:
        for prefix in ("hf_hub:", "hf-hub:", "timm/"):  # as the names stand on the hub
            name = name.removeprefix(prefix)
        make = lambda **settings: package.create_model(name, pretrained=False, **settings)  # noqa: E731
    if name not in known and name.partition(".")[0] not in known:
        raise SettingError(f"{origin} has no model {name or repr(name)}{near(name, known, most=3)}")
    return make


def _configured(folder: Path, spec: str) -> Callable[..., nn.Module]:
    content = _read(folder / "config.json")
    if "model_type" not in content and isinstance(content.get("architecture"), str):
        return _of_timm(content, spec)
    transformers = library("transformers", spec)

    def make(**settings: Any) -> nn.Module:
        try:
            config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, **settings)
        except (OSError, ValueError) as problem:
            raise SettingError(
                f"{spec} must hold a configuration that transformers knows, but: {first_line(problem, 200)}"
            ) from problem
        found = named_class(transformers, config)
        return transformers.AutoModel.from_config(config) if found is None else found(config)

    return make


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise SettingError(f"{file} must be readable JSON, but: {first_line(problem, 200)}") from problem
    if not isinstance(content, dict):
        raise SettingError(f"{file} must be a JSON object, got {type(content).__name__}")
    return content


def _of_timm(content: dict[str, Any], spec: str) -> Callable[..., nn.Module]:
    """A folder as timm leaves it on the hub: the name of the architecture, and how it differs from its default."""
    make = _named("timm", content["architecture"])
    chosen = {name: content[name] for name in ("num_classes", "global_pool") if name in content}
    changed = content.get("model_args")
    return lambda **settings: make(**{**chosen, **(changed if isinstance(changed, dict) else {}), **settings})
