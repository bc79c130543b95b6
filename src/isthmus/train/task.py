"""What a group of replicas has in common, and the state that differs: one module, many weights."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from isthmus.core.errors import SettingError
from isthmus.core.losses import answers, squared_error
from isthmus.core.network import Network
from isthmus.core.weights import check_alike
from isthmus.train import folding, optimisers
from isthmus.train.recipe import Recipe


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """One module and one way of training it; what all replicas of a group share.

    Attributes:
        recipe: any of the group's recipes; they differ in seeds only.
        module: the module in training mode, a private copy.
        network: the module as a function of its weights.
        parameters: names of the trainable tensors.
        buffers: names of everything else that belongs to one replica: running statistics, counters, frozen parameters.
        counters: how many batches BatchNorm layers had seen at the start; counted by the steps, not by the module.
        stochastic: whether a forward pass draws random numbers (dropout), so that it must run one replica at a time.
        classes: how many classes the labels have.
    """

    recipe: Recipe
    module: nn.Module
    network: Network
    parameters: tuple[str, ...]
    buffers: tuple[str, ...]
    counters: Mapping[str, Tensor]
    stochastic: bool
    classes: int
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' precision."""
        return torch.float64 if self.recipe.precision == "float64" else torch.float32

    @property
    def convolutional(self) -> bool:
        """Whether the module convolves, which is slow when vectorised; not so where patches do not overlap."""
        layers = (layer for layer in self.module.modules() if isinstance(layer, nn.modules.conv._ConvNd))
        return any(not folding.whole_patches(one.weight, one.stride, one.padding, one.groups) for one in layers)

    def copy(self) -> Task:
        """The same task with a module of its own, for an engine that binds tensors to it for good."""
        return dataclasses.replace(self, module=copy.deepcopy(self.module))

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of a forward pass."""
        if self.recipe.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The context of everything: float32 products on CUDA are rounded to TensorFloat-32 only if the recipe says so.

        torch's own default rounds convolutions but not matrix products; its settings are put back afterwards.
        """
        if self.device.type != "cuda":
            yield
            return
        rounded = self.recipe.precision == "tensorfloat32"
        cudnn: Any = torch.backends.cudnn
        places = (torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn)
        if hasattr(torch.backends.cuda.matmul, "fp32_precision"):
            name, value = "fp32_precision", "tf32" if rounded else "ieee"
        else:  # before torch 2.9
            name, value, places = "allow_tf32", rounded, (torch.backends.cuda.matmul, torch.backends.cudnn)
        before = [getattr(place, name) for place in places]
        try:
            for place in places:
                setattr(place, name, value)
            yield
        finally:
            for place, old in zip(places, before, strict=True):
                setattr(place, name, old)

    def apply(self, parameters: Sequence[Tensor], buffers: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Class scores in training mode; buffers are moved in place."""
        named = {**dict(zip(self.parameters, parameters, strict=True)), **dict(zip(self.buffers, buffers, strict=True))}
        return scores(torch.func.functional_call(self.module, named, (inputs,)))

    def export(self, state: State, index: int, *, device: str | torch.device = "cpu") -> dict[str, Tensor]:
        """One replica's state dict: tensors of its own, in the module's order, tied names included."""
        own = dict(zip(self.parameters, state.parameters, strict=True)) | dict(
            zip(self.buffers, state.buffers, strict=True)
        )
        names = {name: self.network.tied.get(name, name) for name in self.network.names}
        copies = {name: tensor[index].detach().to(device=device, copy=True) for name, tensor in own.items()}
        copies |= {name: (start + state.steps).to(device) for name, start in self.counters.items()}
        return {name: copies[source] for name, source in names.items()}

    def losses(self, outputs: Tensor, targets: Tensor) -> Float[Tensor, " replicas"]:
        """Mean loss of each replica; both arguments have a leading replica axis."""
        replicas = len(outputs)
        single = self.loss(outputs.flatten(0, 1), targets.flatten(0, 1), reduction="none")
        return single.reshape(replicas, -1).mean(1)

    def loss(self, outputs: Tensor, targets: Tensor, *, reduction: str = "mean") -> Tensor:
        """Mean loss over a batch, or the loss of each example."""
        if outputs.dim() > 2 and outputs.shape[:-1] == targets.shape:  # sequences: classes last
            outputs, targets = outputs.flatten(0, -2), targets.flatten()
        outputs = outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs
        if self.recipe.loss == "cross_entropy":
            self._check(outputs, enough=outputs.dim() > 1 and outputs.shape[1] >= self.classes)
            return functional.cross_entropy(
                outputs, targets, reduction=reduction, label_smoothing=self.recipe.label_smoothing
            )
        if not targets.is_floating_point():  # one-hot, written so that a trace need not look at the labels
            targets = (targets[..., None] == torch.arange(self.classes, device=targets.device)).to(outputs.dtype)
            self._check(outputs, enough=outputs.shape == targets.shape)
        squares = squared_error(outputs, targets)
        return squares.mean() if reduction == "mean" else squares

    def _check(self, outputs: Tensor, *, enough: bool) -> None:
        if not enough:
            raise SettingError(
                f"{self.recipe.network} must return what {self.recipe.loss} compares with the targets, such as"
                f" {self.classes} scores for each example where the data have {self.classes} classes,"
                f" got outputs of shape {tuple(outputs.shape)}"
            )


@dataclasses.dataclass(eq=False)
class State:
    """Weights and optimiser memory of a group, stacked along a leading replica axis. Training writes into it.

    Attributes:
        parameters: trainable tensors, in the task's order.
        buffers: the other tensors of each replica.
        memory: the optimiser's, lists like ``parameters``.
        masks: 1 where a parameter may be non-zero; empty without pruning.
        losses: sums of the batch losses since they were last read.
        steps: how many were taken.
    """

    parameters: list[Tensor]
    buffers: list[Tensor]
    memory: list[list[Tensor]]
    masks: list[Tensor]
    losses: Float[Tensor, " replicas"]
    steps: int = 0

    @property
    def count(self) -> int:
        """How many replicas there are."""
        return len(self.losses)

    def map(self, change: Callable[[Tensor], Tensor]) -> State:
        """The same state with every tensor changed."""
        lists = ([change(t) for t in part] for part in (self.parameters, self.buffers, self.masks))
        parameters, buffers, masks = lists
        memory = [[change(tensor) for tensor in part] for part in self.memory]
        return State(parameters, buffers, memory, masks, change(self.losses), self.steps)

    def clone(self) -> State:
        """A copy that shares nothing."""
        return self.map(torch.clone)

    def part(self, first: int, last: int) -> State:
        """Replicas ``first`` … ``last`` − 1, as views: training them trains this state."""
        return self.map(lambda tensor: tensor[first:last])

    def select(self, indices: Sequence[int]) -> State:
        """Copies of some replicas, in the given order, also repeated."""
        chosen = torch.tensor(list(indices), device=self.losses.device)
        return self.map(lambda tensor: tensor.index_select(0, chosen))

    def tensors(self) -> list[Tensor]:
        """Every tensor that training writes to."""
        return [*self.parameters, *self.buffers, *(t for part in self.memory for t in part), self.losses]

    def inputs(self) -> list[Tensor]:
        """What a forward and backward pass reads."""
        return [*self.parameters, *self.buffers, *self.masks]

    def copy_(self, other: State) -> None:
        """Take over another state's values."""
        torch._foreach_copy_(self.tensors(), other.tensors())


Build = Callable[[Recipe], nn.Module]


def prepare(
    recipes: Sequence[Recipe], module: Build | nn.Module, example: Tensor, *, classes: int, device: torch.device
) -> tuple[Task, State]:
    """Build every replica's initial weights and what the group shares.

    Args:
        recipes: of one group.
        module: a function from a recipe to its initialised module, or one module that every replica starts from.
        example: a small batch of inputs, to see whether the module draws random numbers.
        classes: of the labels.
        device: where training happens.

    Raises:
        SettingError: the replicas' modules differ in their tensors.
    """
    modules: list[nn.Module] = [module if isinstance(module, nn.Module) else module(recipe) for recipe in recipes]
    dtype = torch.float64 if recipes[0].precision == "float64" else torch.float32
    skeleton = copy.deepcopy(modules[0]).to(device=device, dtype=dtype).train()
    counters = _without_counters(skeleton)
    trainable = tuple(name for name, parameter in skeleton.named_parameters() if parameter.requires_grad)
    named = [{**dict(one.named_parameters()), **dict(one.named_buffers())} for one in modules]
    for other in named[1:]:
        check_alike(named[0], other, what="replicas of one group")
    if not trainable:
        raise SettingError("a module must have at least one trainable parameter, got none")
    others = tuple(name for name in named[0] if name not in trainable and name not in counters)

    def stacked(names: Sequence[str]) -> list[Tensor]:
        parts = ([one[name].detach().to(device) for one in named] for name in names)
        stacks = [torch.stack(part) for part in parts]
        return [stack.to(dtype) if stack.is_floating_point() else stack for stack in stacks]

    parameters = stacked(trainable)
    state = State(
        parameters,
        stacked(others),
        optimisers.slots(recipes[0], parameters),
        [],
        torch.zeros(len(recipes), dtype=torch.float64 if dtype is torch.float64 else torch.float32, device=device),
    )
    network = Network.of(copy.deepcopy(modules[0]).to(device=device, dtype=dtype))
    task = Task(recipes[0], skeleton, network, trainable, others, counters, False, classes, device)
    return dataclasses.replace(task, stochastic=_draws(task, state, example)), state


def _without_counters(module: nn.Module) -> dict[str, Tensor]:
    """Take the batch counters out of BatchNorm layers that do not need them: one kernel less in each layer and step."""
    counters = {}
    for name, layer in module.named_modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.momentum is not None:
            if layer.num_batches_tracked is not None:
                counters[f"{name}.num_batches_tracked".lstrip(".")] = layer.num_batches_tracked.cpu()
            layer.num_batches_tracked = None
    return counters


def _draws(task: Task, state: State, example: Tensor) -> bool:
    """Whether a forward pass in training mode moves the global generators."""
    devices = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), torch.no_grad(), task.autocast():
        first = state.part(0, 1).map(lambda tensor: tensor[0].clone())
        before = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
        task.apply(first.parameters, first.buffers, example)
        after = [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def scores(outputs: Any) -> Tensor:
    """The tensor of class scores in whatever a module returns."""
    found = answers(outputs)
    if not isinstance(found, Tensor):
        raise SettingError(f"a module must return class scores, alone or as logits, got {type(outputs).__name__}")
    return found
