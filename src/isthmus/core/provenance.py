"""Where a result comes from: versions, machine, command."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from typing import Any

import torch

from isthmus.core.machine import cores

_PACKAGES = ("isthmus", "torch", "numpy", "scipy", "lapx", "safetensors")


def provenance() -> dict[str, Any]:
    """Versions, machine and command line of this process, as plain values."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "unknown"
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "versions": {**versions, "python": platform.python_version()},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": cores(),
            "torch_threads": torch.get_num_threads(),
            "devices": devices,
        },
    }


def command_line() -> str:
    """The command that started this process, quoted for a shell."""
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    return shlex.join([program, *sys.argv[1:]])
