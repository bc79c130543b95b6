"""Real architectures at small size, for the slow suite and the table in the documentation.

Each entry makes a module with random weights and gives an example input; nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Architecture:
    """A named network and an example input."""

    name: str
    make: Callable[[], nn.Module]
    example: tuple[Tensor, ...]
    keywords: dict[str, Any] = dataclasses.field(default_factory=dict)


def define_missing_operators() -> None:
    """torchvision whose compiled operators do not fit this torch needs two of them before it can be imported.

    Those that fit are loaded here: an operator that is defined twice ends the process.
    """
    found = importlib.util.find_spec("torchvision")
    for folder in (found and found.submodule_search_locations) or ():
        for library in Path(folder).glob("_C*.so"):
            with contextlib.suppress(OSError):
                torch.ops.load_library(library)
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def torchvision_classifiers() -> list[Architecture]:
    """Every classifier of torchvision."""
    define_missing_operators()
    import torchvision

    def made(name: str) -> Callable[[], nn.Module]:
        options: dict[str, Any] = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        if name.startswith("vit_"):
            options["image_size"] = side(name)
        if name == "maxvit_t":
            options["input_size"] = (side(name), side(name))
        return lambda: torchvision.models.get_model(name, weights=None, **options)

    def side(name: str) -> int:
        if name.startswith(("alexnet", "vgg")):
            return 224  # smaller ones are pooled *up* before the first dense layer, which adds symmetries
        return {"inception_v3": 96, "vit_h_14": 56, "maxvit_t": 224}.get(name, 64)

    return [
        Architecture(f"torchvision:{name}", made(name), (torch.zeros(1, 3, side(name), side(name)),))
        for name in torchvision.models.list_models(module=torchvision.models)
    ]


def timm_families() -> list[Architecture]:
    """One small model of each family of timm."""
    define_missing_operators()
    import timm

    def made(name: str, side: int | None) -> Callable[[], nn.Module]:
        def make() -> nn.Module:
            if side is not None:
                with contextlib.suppress(TypeError):  # networks of convolutions take any size and no such argument
                    return timm.create_model(name, pretrained=False, img_size=side)
            return timm.create_model(name, pretrained=False)

        return make

    small = (
        "test_",
        "atto",
        "femto",
        "pico",
        "nano",
        "_xxs",
        "xxtiny",
        "xtiny",
        "tiny",
        "_xs",
        "mini",
        "small",
        "_s0",
        "_b0",
        "18",
        "26",
    )
    result = []
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        if not names:
            continue
        name = min(names, key=lambda n: (next((k for k, mark in enumerate(small) if mark in n), len(small)), len(n), n))
        said = timm.get_pretrained_cfg(name)
        shape = said.input_size if said is not None else (3, 224, 224)
        if said is not None and not said.fixed_input_size:
            # what is divided into blocks or patches needs a multiple of their size
            least = next((size for mark, size in (("halonet", 256), ("deepseek", 112)) if mark in name), 96)
            shape = (3, *(min(side, least) for side in (said.min_input_size or shape)[1:]))
        side = shape[1] if said is not None and shape != said.input_size else None
        result.append(Architecture(f"timm:{name}", made(name, side), (torch.zeros(1, *shape),)))
    return result
