"""Network: a module as a pure function of its weights."""

from __future__ import annotations

import copy
import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from isthmus.core.errors import WeightsError, listed
from isthmus.core.vectorising import Vectorising
from isthmus.core.weights import Weights, stack, unstack


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A module that takes its weights as an argument and never changes them, nor itself.

    Attributes:
        weights: the weights that the module came with (shared with it, not copied).
        parameter_names: the trainable tensors, each tied tensor once, in the module's order.
        buffer_names: tensors that move along (running statistics, counters).
        tied: names that share a tensor with an earlier one, and that earlier one's name.

    Example:
        >>> network = Network.of(nn.Linear(2, 1))
        >>> network(network.weights, torch.ones(3, 2)).shape
        torch.Size([3, 1])
    """

    weights: Mapping[str, Tensor]
    parameter_names: tuple[str, ...]
    buffer_names: tuple[str, ...]
    tied: Mapping[str, str]
    _evaluating: nn.Module = dataclasses.field(repr=False)
    _training: nn.Module = dataclasses.field(repr=False)
    _copies: dict[tuple[int, str], nn.Module] = dataclasses.field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        parameters = sum(self.weights[name].numel() for name in self.parameter_names)
        tensors = f"{parameters:,} parameters in {len(self.parameter_names)} tensors"
        return f"<Network of {type(self._evaluating).__name__}: {tensors}, {len(self.buffer_names)} buffers>"

    @classmethod
    def of(cls, module: nn.Module) -> Network:
        """Make a network from any module. The module is left as it is; tensors are shared with it, never written.

        Raises:
            WeightsError: a lazy layer has no weights yet.
        """
        if unmade := [name for name, tensor in module.named_parameters() if is_lazy(tensor)]:
            raise WeightsError(
                f"a network must have its weights, but those of lazy layers are not made: {listed(unmade)}; call the "
                "module on an example once"
            )
        weights = {name: tensor.detach() for name, tensor in module.state_dict().items()}
        # Quantised modules keep whole numbers as parameters, which cannot have a gradient.
        parameters = tuple(
            name
            for name, tensor in module.named_parameters()
            if name in weights and (tensor.is_floating_point() or tensor.is_complex())
        )
        tied = _tied(module, weights)
        buffers = tuple(name for name in weights if name not in parameters and name not in tied)
        return cls(weights, parameters, buffers, tied, _skeleton(module).eval(), _skeleton(module).train())

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor's name, in the state dict's order."""
        return tuple(self.weights)

    @property
    def has_batch_statistics(self) -> bool:
        """Whether evaluation depends on running statistics that belong to one point in weight space."""
        return any(
            isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None
            for layer in self._evaluating.modules()
        )

    @property
    def batch_dependent(self) -> tuple[str, ...]:
        """Layers that normalise by the batch they see, also in evaluation: BatchNorm without running statistics."""
        return tuple(
            name
            for name, layer in self._evaluating.named_modules()
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is None
        )

    def modules(self) -> Mapping[str, nn.Module]:
        """The layers by name, to read their settings; not to be changed."""
        return dict(self._evaluating.named_modules())

    def hooked(
        self,
        *,
        before: Mapping[str, Callable[..., Any]] | None = None,
        after: Mapping[str, Callable[..., Any]] | None = None,
    ) -> Network:
        """A second network whose evaluating layers call these functions; this one stays as it is.

        Args:
            before: layer name → ``f(layer, inputs)``, called with what the layer is about to read; may give other
                inputs.
            after: layer name → ``f(layer, inputs, output)``; may give another output.

        The functions must be plain functions or closures. During a call the layer's tensors are those of that call's
        weights.

        Raises:
            WeightsError: there is no such layer.
        """
        evaluating = _skeleton(self._evaluating)
        layers = dict(evaluating.named_modules())
        if unknown := [name for name in {**(before or {}), **(after or {})} if name not in layers]:
            raise WeightsError(f"hooks must name layers of the network; unknown: {listed(unknown)}")
        for name, function in (before or {}).items():
            layers[name].register_forward_pre_hook(function)
        for name, function in (after or {}).items():
            layers[name].register_forward_hook(function)
        return dataclasses.replace(self, _evaluating=evaluating, _copies={})

    def __call__(self, weights: Weights, *inputs: Any, **keywords: Any) -> Any:
        """The output in evaluation mode.

        Raises:
            WeightsError: tensors are missing or unknown.
        """
        return torch.func.functional_call(self._own("_evaluating"), self._arguments(weights), inputs, keywords)

    def training(self, weights: Weights, *inputs: Any, **keywords: Any) -> tuple[Any, dict[str, Tensor]]:
        """The output in training mode and the buffers after it (running statistics moved by one batch)."""
        arguments = self._arguments(weights)
        buffers = {name: arguments[name].clone() for name in self.buffer_names}
        output = torch.func.functional_call(self._own("_training"), {**arguments, **buffers}, inputs, keywords)
        return output, buffers

    def by_batch(self, weights: Weights, *inputs: Any, **keywords: Any) -> Any:
        """The output in evaluation mode (no dropout) but for BatchNorm, which uses the batch's own statistics."""
        arguments = self._arguments(weights)
        buffers = {name: arguments[name].clone() for name in self.buffer_names}
        return torch.func.functional_call(self._own("_batchwise"), {**arguments, **buffers}, inputs, keywords)

    def many(self, stacked: Weights, *inputs: Any, **keywords: Any) -> Any:
        """The outputs of many solutions for the same inputs, in evaluation mode, with a leading solution axis.

        All at once where the module can be vectorised (``torch.vmap``), one after the other where it cannot.

        Raises:
            torch.cuda.OutOfMemoryError: they do not fit together; :class:`isthmus.core.portions.Portions` tries fewer.

        Cost: activations of all solutions at once.
        """

        def one(weights: Weights) -> Any:
            return self(weights, *inputs, **keywords)

        try:
            with Vectorising():
                return torch.func.vmap(one)(dict(stacked))
        except torch.cuda.OutOfMemoryError:  # a RuntimeError, too, but no sign that the module cannot be vectorised
            raise
        except (RuntimeError, NotImplementedError):
            outputs = [one(weights) for weights in unstack(stacked)]
            if isinstance(outputs[0], Tensor):
                return torch.stack(outputs)
            if isinstance(outputs[0], Mapping):
                return stack(outputs)
            return tuple(torch.stack(parts) for parts in zip(*outputs, strict=True))

    @functools.cached_property
    def _batchwise(self) -> nn.Module:
        """The evaluating structure with BatchNorm in training mode."""
        module = _skeleton(self._evaluating)
        for layer in module.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.train()
        return module

    def _own(self, which: str) -> nn.Module:
        """The calling thread's own structure: a call swaps tensors inside it, so two threads must not share one."""
        key = (threading.get_ident(), which)
        if key not in self._copies:
            self._copies[key] = _skeleton(getattr(self, which))
        return self._copies[key]

    def _arguments(self, weights: Weights) -> dict[str, Tensor]:
        """Weights without the tied copies: one tensor for each parameter of the module."""
        if missing := [name for name in self.weights if name not in weights and name not in self.tied]:
            raise WeightsError(f"weights must hold every tensor of the network; missing: {listed(missing)}")
        if extra := [name for name in weights if name not in self.weights]:
            raise WeightsError(f"weights must hold only the network's tensors; unknown: {listed(extra)}")
        # PyTorch's batch_norm reads vectors with gaps in memory rightly forwards and wrongly backwards (2.13, CPU).
        return {
            name: tensor.contiguous() if tensor.dim() == 1 else tensor
            for name, tensor in weights.items()
            if name not in self.tied
        }


def _skeleton(module: nn.Module) -> nn.Module:
    """A copy of the module's structure that shares its tensors; hooks and settings are kept."""
    shared: dict[int, Any] = {id(tensor): tensor for tensor in [*module.parameters(), *module.buffers()]}
    return copy.deepcopy(module, shared)


def _tied(module: nn.Module, weights: Weights) -> dict[str, str]:
    """State-dict names that are the same tensor as an earlier name."""
    first: dict[int, str] = {}
    tied = {}
    for name, tensor in [
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    ]:
        if name in weights and first.setdefault(id(tensor), name) != name:
            tied[name] = first[id(tensor)]
    return tied
