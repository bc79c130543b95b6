"""Both forms of every optimiser against torch.optim, step by step; SAM against its equation."""

import pytest
import torch

from isthmus.train import Recipe, optimisers

SETTINGS = {
    "plain": {"optimiser": "sgd", "momentum": 0.0},
    "decay": {"optimiser": "sgd", "momentum": 0.0, "weight_decay": 0.02},
    "momentum": {"optimiser": "sgd", "momentum": 0.9, "weight_decay": 0.02},
    "nesterov": {"optimiser": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.02},
    "adam": {"optimiser": "adam", "betas": (0.8, 0.97), "weight_decay": 0.02, "epsilon": 1e-6},
    "adamw": {"optimiser": "adamw", "weight_decay": 0.3},
}


def reference(recipe: Recipe, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            parameters, lr=0.0, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay
        )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimiser]
    return kind(parameters, lr=0.0, betas=recipe.betas, eps=recipe.epsilon, weight_decay=recipe.weight_decay)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["returned", "in place", "in place, not fused"])
def test_six_steps_as_torch_takes_them(name, dtype, form, monkeypatch):
    if form == "in place, not fused":
        monkeypatch.setattr(optimisers, "_fused", lambda parameters: False)
    generator = torch.Generator().manual_seed(1)
    recipe = Recipe(**SETTINGS[name])
    start = [torch.randn(4, 3, generator=generator, dtype=dtype), torch.randn(5, generator=generator, dtype=dtype)]
    theirs = [tensor.clone().requires_grad_() for tensor in start]
    ours = [tensor.clone() for tensor in start]
    memory = optimisers.slots(recipe, ours)
    optimiser = reference(recipe, theirs)
    for step in range(6):
        gradients = [torch.randn(t.shape, generator=generator, dtype=dtype) for t in start]
        rate = 0.1 / (step + 1)
        optimiser.param_groups[0]["lr"] = rate
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimiser.step()
        arguments = {"rate": torch.tensor(rate, dtype=dtype), "step": torch.tensor(float(step))}
        if form == "returned":
            ours, memory = optimisers.stepped(recipe, ours, gradients, memory, **arguments)
        else:
            optimisers.step_(recipe, ours, gradients, memory, **arguments)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other.detach(), rtol=1e-5 if dtype is torch.float32 else 1e-12, atol=1e-7)


def test_a_gradient_in_another_layout_is_still_right():
    recipe = Recipe(optimiser="sgd", momentum=0.9)
    weight, gradient = torch.randn(3, 4), torch.randn(4, 3).t()
    ours, memory = [weight.clone()], optimisers.slots(recipe, [weight])
    optimisers.step_(recipe, ours, [gradient], memory, rate=0.1, step=torch.tensor(0.0))
    torch.testing.assert_close(ours[0], weight - 0.1 * gradient)
