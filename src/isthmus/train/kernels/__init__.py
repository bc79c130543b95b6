"""Triton kernels for many replicas in one launch; they run where Triton and a GPU with bfloat16 products are."""

from __future__ import annotations

import torch

from isthmus.train.kernels.language import INSTALLED


def available(device: torch.device) -> bool:
    """Whether the kernels run on a device."""
    if not INSTALLED or device.type != "cuda" or torch.version.cuda is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)
