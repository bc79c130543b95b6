"""Weights of one tensor, written by hand."""

import torch


def one(*values: float, dtype=torch.float64) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(values, dtype=dtype)}
