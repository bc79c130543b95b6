"""Where a group's units can be watched while a network runs: outputs of what writes them, inputs of what reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from isthmus.core.network import Network
from isthmus.core.symmetry import Site
from isthmus.core.weights import Weights

Side = Literal["input", "output", "projection"]


@dataclasses.dataclass(frozen=True)
class Port:
    """An activation that can be watched.

    Attributes:
        module: the layer's name in the network.
        side: what goes in, what comes out, or the queries, keys and values that attention makes inside.
        axis: where the features lie.
        normalises: the layer is a normalisation.
        offset: position of the site's first feature on the axis (grouped convolutions read slices).
        beside: further layers whose features follow, where units are modules of their own. They are seen together as
            long as all of them see the same samples.
    """

    module: str
    side: Side
    axis: int
    normalises: bool = False
    offset: int = 0
    beside: tuple[str, ...] = ()


def port_of(modules: Mapping[str, nn.Module], site: Site) -> Port | None:
    """The activation whose features are the positions of a site, if the layer is of a known kind."""
    owner, _, parameter = site.tensor.rpartition(".")
    above, _, last = owner.rpartition(".")
    attention = modules.get(above)
    if isinstance(attention, nn.MultiheadAttention) and last == "out_proj":
        # Attention uses this layer's tensors without calling it; only what comes out at the end can be seen.
        return Port(above, "output", -1) if site.dim == 0 else None
    module = modules.get(owner)
    if module is None:
        return None
    if isinstance(module, nn.MultiheadAttention):
        if parameter not in ("in_proj_weight", "in_proj_bias"):
            return None
        return Port(owner, "projection" if site.dim == 0 else "input", -1)
    if isinstance(module, _ConvNd):
        return _convolution(owner, module, parameter, site)
    return _plain(owner, module, parameter, site)


class Watch:
    """A network whose ports are watched. Private to one call of a matcher: not for several threads."""

    def __init__(self, network: Network, ports: Sequence[Port]) -> None:
        self._parts = {
            port: [dataclasses.replace(port, module=name, beside=()) for name in (port.module, *port.beside)]
            for port in ports
        }
        ports = list(dict.fromkeys(part for parts in self._parts.values() for part in parts))
        self._seen: dict[Port, list[Tensor]] = {port: [] for port in ports}
        before: dict[str, Callable[..., None]] = {}
        after: dict[str, Callable[..., None]] = {}
        for name in dict.fromkeys(port.module for port in ports):
            own = [port for port in ports if port.module == name]
            if inputs := [port for port in own if port.side == "input"]:
                before[name] = self._reader(inputs)
            if outputs := [port for port in own if port.side != "input"]:
                after[name] = self._writer(outputs)
        self._network = network.hooked(before=before, after=after)

    def __call__(self, weights: Weights, *inputs: Any, **keywords: Any) -> dict[Port, list[Tensor]]:
        """Run the network; what passed each port, as (samples, features), one entry for each time it was called."""
        for tensors in self._seen.values():
            tensors.clear()
        self._network(weights, *inputs, **keywords)
        return {port: _together([self._seen[part] for part in parts]) for port, parts in self._parts.items()}

    def _reader(self, ports: Sequence[Port]) -> Callable[..., None]:
        seen = self._seen

        def note(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            for port in ports:
                if (value := _first_tensor(inputs)) is not None:
                    seen[port].append(_features(value, port.axis))

        return note

    def _writer(self, ports: Sequence[Port]) -> Callable[..., None]:
        seen = self._seen

        def note(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            for port in ports:
                value = _first_tensor(output if isinstance(output, tuple) else (output,))
                if port.side == "projection" and isinstance(layer, nn.MultiheadAttention):
                    source = _first_tensor(inputs)
                    value = None if source is None else _projected(layer, source)
                if value is not None:
                    seen[port].append(_features(value, port.axis))

        return note


def _together(parts: Sequence[list[Tensor]]) -> list[Tensor]:
    """What layers beside each other saw, as features of the same samples; nothing where each saw samples of its own."""
    if len(parts) == 1:
        return list(parts[0])
    calls = list(zip(*parts, strict=False))
    samples = {tuple(len(tensor) for tensor in part) for part in parts}
    return [torch.cat(call, dim=1) for call in calls] if len(samples) == 1 else []


def _projected(layer: nn.MultiheadAttention, source: Tensor) -> Tensor | None:
    """Queries, keys and values of self-attention, one after the other."""
    if layer.in_proj_weight is None:
        return None
    return functional.linear(source, layer.in_proj_weight, layer.in_proj_bias)


def _features(value: Tensor, axis: int) -> Float[Tensor, "samples features"]:
    moved = value.detach().movedim(axis, -1)
    made = moved.reshape(-1, moved.shape[-1])
    # A copy, for layers that follow may work in place; moving the axis has often made one.
    return made.clone() if made.untyped_storage().data_ptr() == value.untyped_storage().data_ptr() else made


def _first_tensor(values: Sequence[Any]) -> Tensor | None:
    return next((value for value in values if isinstance(value, Tensor) and value.dim() > 0), None)


def _convolution(owner: str, module: _ConvNd, parameter: str, site: Site) -> Port | None:
    if isinstance(module, _ConvTransposeNd):
        writes = parameter == "bias" or site.dim == 1
        return Port(owner, "output" if writes else "input", 1) if module.groups == 1 else None
    if site.dim == 0:
        return Port(owner, "output", 1)
    if site.dim != 1:
        return None
    if module.groups == 1:
        return Port(owner, "input", 1)
    kept: Int[Tensor, " rows"] | None = dict(site.within).get(0)
    if kept is None:
        return None
    part = int(kept.min()) // (module.out_channels // module.groups)
    return Port(owner, "input", 1, offset=part * (module.in_channels // module.groups))


def _plain(owner: str, module: nn.Module, parameter: str, site: Site) -> Port | None:
    if isinstance(module, nn.Linear):
        return Port(owner, "output" if site.dim == 0 else "input", -1)
    if isinstance(module, nn.Embedding):
        return Port(owner, "output", -1) if site.dim == 1 else None
    if isinstance(module, _NormBase | nn.GroupNorm):
        return Port(owner, "output", 1, normalises=True)
    if type(module).__name__ == "Conv1D" and hasattr(
        module, "nf"
    ):  # the transposed linear layer of GPT-2 in transformers
        writes = parameter == "bias" or site.dim == 1
        return Port(owner, "output" if writes else "input", -1)
    vector = getattr(module, parameter, None)
    if isinstance(vector, Tensor) and vector.dim() == 1 and "norm" in type(module).__name__.lower():
        return Port(owner, "output", -1, normalises=True)
    return None
