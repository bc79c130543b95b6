"""Real architectures: each is discovered and proved."""

from __future__ import annotations

import pytest
import torch
from tests.discover.architectures import (
    Architecture,
    define_missing_operators,
    timm_families,
    torchvision_classifiers,
)
from tests.discover.hugging_face import hugging_face_configurations

import isthmus

pytestmark = pytest.mark.slow


def check(architecture: Architecture) -> None:
    torch.manual_seed(0)
    module = architecture.make().eval()
    symmetry = isthmus.discover(module, architecture.example, keywords=architecture.keywords)
    assert symmetry.groups
    assert symmetry.proof is not None
    assert symmetry.proof.error < 1e-9


def failures(architectures: list[Architecture]) -> dict[str, str]:
    failed = {}
    for architecture in architectures:
        try:
            check(architecture)
        except Exception as problem:
            failed[architecture.name] = str(problem)[:200]
    return failed


def listed(source: str) -> list[Architecture]:
    define_missing_operators()  # before torchvision is imported, by whomever
    pytest.importorskip(source)
    return {
        "torchvision": torchvision_classifiers,
        "timm": timm_families,
        "transformers": hugging_face_configurations,
    }[source]()


@pytest.mark.timeout(3600)
def test_hugging_face() -> None:
    assert not failures(listed("transformers"))


#: torchvision's classifiers whose counts Torch-Pruning's dependency graph gives; ours must reach them.
COUNTS = {
    "resnet18": 12,
    "resnet50": 37,
    "vgg16_bn": 15,
    "densenet121": 120,
    "mobilenet_v3_small": 27,
    "efficientnet_b0": 40,
    "convnext_tiny": 22,
    "googlenet": 57,
    "vit_b_16": 14,
    "swin_t": 14,
    "shufflenet_v2_x1_0": 1,
    "regnet_y_400mf": 1,
}


@pytest.mark.timeout(3600)
def test_twelve_torchvision_classifiers_reach_the_published_counts() -> None:
    found = {a.name.partition(":")[2]: a for a in listed("torchvision")}
    for name, least in COUNTS.items():
        symmetry = isthmus.discover(found[name].make().eval(), found[name].example)
        assert len(symmetry.groups) >= least, name
        assert symmetry.proof is not None


@pytest.mark.timeout(36000)
@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_every_architecture(source: str) -> None:
    assert not failures(listed(source))
