"""Activations made of orthogonal polynomials: Chebyshev, Hermite, Legendre.

A polynomial grows without bound, so its input is bounded first, z ↦ b·tanh(z/b), and every form starts at the second
moment that a rectifier would have for standard normal input, 1/2: layers initialised for rectifiers keep their scale.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.core.errors import SettingError, listed
from isthmus.zoo.architectures import check_positive

FAMILIES = ("chebyshev", "hermite", "legendre")
FORMS = ("shared", "units", "degrees")
_BOUNDS = {"chebyshev": 1.0, "hermite": 3.0, "legendre": 1.0}  # Hermite's weight is the normal's: nearly all within 3
_NODES = 64  # of the Gauss–Hermite rule that sets the scale


class OrthoPolynomial(nn.Module):
    """An activation Σ_k c_k·P_k(b·tanh(z/b)), elementwise.

    Args:
        family: ``chebyshev``, ``hermite`` (probabilists', orthonormal) or ``legendre``.
        degree: the highest, at least 1.
        form: ``shared``: one set of trained coefficients; ``units``: one for each unit; ``degrees``: nothing is
            trained, the units are cut into ``degree`` equal parts (the first ones larger), part k computing P_k alone,
            centred. Units of different parts then cannot be exchanged, those of one part can.
        units: how many there are; needed by ``units`` and ``degrees``.
        dim: the axis of the units.

    Raises:
        SettingError: an unknown family or form, or too few units.

    Example:
        >>> OrthoPolynomial("legendre", degree=3)(torch.zeros(2, 5)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        family: str = "chebyshev",
        *,
        degree: int = 4,
        form: str = "shared",
        units: int | None = None,
        dim: int = 1,
    ) -> None:
        super().__init__()
        _check(family, degree, form, units)
        self.family, self.degree, self.form, self.units, self.dim = family, degree, form, units, dim
        # Found here, not in the forward pass: tracers see only tensor operations there.
        self._levels = [_level(family, order + 1) for order in range(degree)] if form == "degrees" else []
        if form != "degrees":
            shape = (degree + 1,) if form == "shared" else (degree + 1, units or 0)
            self.coefficients = nn.Parameter(torch.empty(shape))
            if self.coefficients.device.type != "meta":
                self.draw()

    @torch.no_grad()
    def draw(self, generator: torch.Generator | None = None) -> None:
        """Set the coefficients to their start, which draws nothing: the best fit to a rectifier, at its scale."""
        if self.form != "degrees":
            start = torch.tensor(_rectifier(self.family, self.degree)).to(self.coefficients)
            self.coefficients.copy_(start if self.form == "shared" else start[:, None].expand_as(self.coefficients))

    def forward(self, inputs: Tensor) -> Tensor:
        """Preactivations in, activations of the same shape out."""
        bound = _BOUNDS[self.family]
        bounded = bound * torch.tanh(inputs / bound)
        if self.form == "degrees":
            parts = bounded.split(parts_of(self.units or 0, self.degree), self.dim)
            return torch.cat([self._single(part, order + 1) for order, part in enumerate(parts)], self.dim)
        total: Tensor | float = 0.0
        for order, value in enumerate(polynomials(bounded, self.family, self.degree)):
            total = total + self._coefficient(order, inputs.dim()) * value
        return total  # type: ignore[return-value]

    def _coefficient(self, order: int, dims: int) -> Tensor:
        if self.form == "shared":
            return self.coefficients[order]
        layout = [1] * dims
        layout[self.dim] = -1
        return self.coefficients[order].view(layout)

    def _single(self, part: Tensor, order: int) -> Tensor:
        mean, scale = self._levels[order - 1]
        return (polynomials(part, self.family, order)[order] - mean) * scale

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.family}, degree={self.degree}, form={self.form}, units={self.units}, dim={self.dim}"


class OrthoMlp(nn.Sequential):
    """Flatten, ``depth`` hidden layers of one width with polynomial activations, then the classes."""

    def __init__(
        self,
        *,
        inputs: Sequence[int] = (3, 32, 32),
        classes: int = 10,
        width: int = 128,
        depth: int = 2,
        family: str = "chebyshev",
        degree: int = 4,
        form: str = "units",
    ) -> None:
        check_positive(classes=classes, width=width, depth=depth)
        sizes = [math.prod(inputs), *[width] * depth]
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), OrthoPolynomial(family, degree=degree, form=form, units=width)]
        super().__init__(*layers, nn.Linear(sizes[-1], classes))


def with_polynomials(
    module: nn.Module, family: str = "chebyshev", *, degree: int = 4, kinds: Sequence[type[nn.Module]] | None = None
) -> nn.Module:
    """A copy of any module with its activation layers replaced by :class:`OrthoPolynomial` of the ``shared`` form.

    Args:
        module: left as it is.
        family: of the polynomials.
        degree: the highest.
        kinds: which layers to replace; ReLU, LeakyReLU, GELU, SiLU, ELU and Tanh by default.

    Raises:
        SettingError: there is no such layer; activations that are called as functions cannot be replaced.
    """
    wanted = tuple(kinds or (nn.ReLU, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.ELU, nn.Tanh))
    result = copy.deepcopy(module)
    found = [
        (owner, name)
        for owner in result.modules()
        for name, child in owner.named_children()
        if isinstance(child, wanted)
    ]
    if not found:
        raise SettingError(
            f"the module must have activation layers to replace ({listed([kind.__name__ for kind in wanted], 10)}); "
            f"{type(module).__name__} has none, it may call them as functions"
        )
    like = next(iter(module.parameters()), torch.empty(0))
    for owner, name in found:
        setattr(owner, name, OrthoPolynomial(family, degree=degree).to(like.device, like.dtype))
    return result


Numbers = TypeVar("Numbers", Tensor, np.ndarray)


def polynomials(inputs: Numbers, family: str, degree: int) -> list[Numbers]:
    """P_0 … P_degree of finite numbers by their three-term recurrences; Hermite's are divided by √(k!)."""
    found = [inputs * 0 + 1, inputs]
    for k in range(1, degree):
        if family == "chebyshev":
            following = 2 * inputs * found[k] - found[k - 1]
        elif family == "legendre":
            following = ((2 * k + 1) * inputs * found[k] - k * found[k - 1]) / (k + 1)
        else:
            following = (inputs * found[k] - math.sqrt(k) * found[k - 1]) / math.sqrt(k + 1)
        found.append(following)
    return found[: degree + 1]


def parts_of(units: int, parts: int) -> list[int]:
    """Sizes of nearly equal parts, larger ones first."""
    return [units // parts + (place < units % parts) for place in range(parts)]


def _check(family: str, degree: int, form: str, units: int | None) -> None:
    if family not in FAMILIES:
        raise SettingError(f"family must be one of {listed(FAMILIES)}, got {family}")
    if form not in FORMS:
        raise SettingError(f"form must be one of {listed(FORMS)}, got {form}")
    if degree < 1:
        raise SettingError(f"degree must be at least 1, got {degree}")
    if form != "shared" and (units is None or units < (degree if form == "degrees" else 1)):
        raise SettingError(f"the form {form} of degree {degree} must have at least {degree} units, got {units}")


@functools.cache
def _basis(family: str, degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes and weights of the standard normal, and the bounded polynomials there, one row for each degree."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    bound = _BOUNDS[family]
    values = np.stack(polynomials(bound * np.tanh(nodes / bound), family, degree))
    return nodes, weights / weights.sum(), values


def _level(family: str, order: int) -> tuple[float, float]:
    """The mean for standard normal input, and the factor that brings the variance to 1/2."""
    _, weights, values = _basis(family, order)
    mean = float(weights @ values[order])
    return mean, math.sqrt(0.5 / (float(weights @ values[order] ** 2) - mean**2))


@functools.cache
def _rectifier(family: str, degree: int) -> tuple[float, ...]:
    """Coefficients of the least-squares fit to max(z, 0), scaled to a second moment of 1/2."""
    nodes, weights, values = _basis(family, degree)
    roots = np.sqrt(weights)
    fitted = np.linalg.lstsq((values * roots).T, np.maximum(nodes, 0) * roots, rcond=None)[0]
    second = float(weights @ (fitted @ values) ** 2)
    return tuple(float(value) for value in fitted * math.sqrt(0.5 / second))
