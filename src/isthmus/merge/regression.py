"""Merging linear layers so that each output stays close to what its own solution computed: regression means."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.errors import SettingError
from isthmus.core.network import Network
from isthmus.core.objective import Objective
from isthmus.core.weights import Weights
from isthmus.merge.fisher import each_objective
from isthmus.merge.merger import average, check_share, check_solutions, merge_tensors


@dataclasses.dataclass(frozen=True, eq=False)
class RegMean:
    """For every linear or convolutional layer the W that minimise Σᵢ ‖Xᵢ(W − Wᵢ)‖²/nᵢ, Xᵢ its nᵢ inputs in solution i.

    The paper's sum has no nᵢ: here sets of different size count alike.

    Attributes:
        objectives: the data of each solution, in the same order (one for all is allowed); labels are not used.
        shrink: factor of the off-diagonal entries of the Gram matrices XᵢᵀXᵢ; 1 is the exact regression, 0 weighs each
            input by its own power.
        examples: how many examples of each objective are used at most.

    Where the inputs leave directions undetermined, the plain average stands. Biases, normalisations, embeddings and
    grouped convolutions are averaged; an embedding that is tied to an output layer follows that layer.

    Reference: Jin et al., "Dataless knowledge fusion by merging weights of language models" (2212.09849), the closed
        form for linear layers and its factor of off-diagonal entries. Convolutions are linear layers on patches.

    Cost: one forward pass over the examples for each solution; one inputs × inputs matrix for each layer and solution.
    """

    objectives: Objective | Sequence[Objective]
    shrink: float = 0.9
    examples: int = 1024

    def __post_init__(self) -> None:
        check_share("shrink", self.shrink, zero=True)
        if self.examples < 1:
            raise SettingError(f"examples must be at least 1, got {self.examples}")

    def __call__(self, solutions: Sequence[Weights]) -> dict[str, Tensor]:
        """Merge."""
        check_solutions(solutions)
        objectives = each_objective(self.objectives, solutions)
        grams = [
            gram_matrices(objective.limited(self.examples), weights)
            for objective, weights in zip(objectives, solutions, strict=True)
        ]
        transposed = _transposed(objectives[0].network)

        def rule(name: str, tensors: list[Tensor]) -> Tensor:
            if name not in grams[0]:
                return average(tensors)
            flip = name in transposed
            matrices = [(tensor.mT if flip else tensor.flatten(1)) for tensor in tensors]
            merged = _regression(matrices, [gram[name] for gram in grams], self.shrink)
            return (merged.mT if flip else merged).reshape(tensors[0].shape)

        return merge_tensors(solutions, rule)


def gram_matrices(objective: Objective, weights: Weights) -> dict[str, Tensor]:
    """XᵀX / rows for the inputs X of every linear or plain convolutional layer, by the name of the layer's weight."""
    network = objective.network
    sums: dict[str, Tensor] = {}
    rows: dict[str, int] = {}

    def seen(name: str, inputs: Tensor) -> None:
        flat = inputs.reshape(-1, inputs.shape[-1])
        flat = flat.to(torch.float32 if flat.device.type == "mps" else torch.float64)
        sums[name] = sums[name] + flat.mT @ flat if name in sums else flat.mT @ flat
        rows[name] = rows.get(name, 0) + len(flat)

    for _ in dataclasses.replace(objective, network=_listening(network, seen)).outputs(weights):
        pass
    return {name: total / rows[name] for name, total in sums.items()}


def _regression(matrices: Sequence[Tensor], grams: Sequence[Tensor], shrink: float) -> Tensor:
    """The weighted solution, as a change of the mean: the directions that no input has keep the mean."""
    middle = torch.stack(list(matrices)).mean(0)
    total = torch.zeros_like(grams[0])
    right = torch.zeros(total.shape[0], middle.shape[0], dtype=total.dtype, device=total.device)
    for matrix, gram in zip(matrices, grams, strict=True):
        shrunk = gram * shrink + torch.diag(gram.diagonal()) * (1 - shrink)
        total += shrunk
        right += shrunk @ (matrix - middle).mT.to(total)
    change = torch.linalg.pinv(total, hermitian=True) @ right
    return middle + change.mT.to(middle)


def _listening(network: Network, seen: Callable[[str, Tensor], None]) -> Network:
    """The network, telling the inputs of every layer that is a matrix product under the name of its weight."""
    hooks: dict[str, Callable[..., Any]] = {}
    for place, layer in network.modules().items():
        rows, name = _rows(layer), f"{place}.weight".removeprefix(".")
        if rows is not None and name in network.weights:

            def hook(_: nn.Module, inputs: tuple[Any, ...], rows: Any = rows, name: str = name) -> None:
                seen(network.tied.get(name, name), rows(inputs[0].detach()))

            hooks[place] = hook
    return network.hooked(before=hooks)


def _rows(layer: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """How the inputs of a layer become rows that its weight multiplies; None for other layers."""
    if isinstance(layer, nn.Linear) or _is_transposed(layer):
        return lambda inputs: inputs
    if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.padding_mode == "zeros":
        padding = layer.padding
        if isinstance(padding, str):
            if padding != "valid":
                return None  # uneven padding of even kernels: such a layer is averaged
            padding = (0, 0)
        settings: Mapping[str, Any] = {"dilation": layer.dilation, "padding": padding, "stride": layer.stride}
        return lambda inputs: functional.unfold(inputs, layer.kernel_size, **settings).mT  # type: ignore[arg-type]
    return None


def _is_transposed(layer: nn.Module) -> bool:
    """GPT-2's linear layer, which stores its weight inputs first."""
    return type(layer).__name__ == "Conv1D" and hasattr(layer, "nf")


def _transposed(network: Network) -> set[str]:
    return {f"{place}.weight" for place, layer in network.modules().items() if _is_transposed(layer)}
