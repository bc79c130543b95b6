"""Convolutions with fast second derivatives: PyTorch's values and derivatives, one vector or many at once."""

import pytest
import torch
from torch.nn import functional

from isthmus.curvature.convolution import Convolutions

CASES = {
    "plain": (functional.conv2d, (2, 3, 5, 5), (4, 3, 3, 3), {}),
    "strided": (functional.conv2d, (2, 3, 7, 6), (4, 3, 3, 2), {"stride": (2, 1), "padding": 1}),
    "dilated groups": (functional.conv2d, (2, 4, 7, 7), (6, 2, 3, 3), {"dilation": 2, "padding": (2, 0), "groups": 2}),
    "depthwise": (functional.conv1d, (2, 3, 8), (3, 1, 3), {"padding": 1, "groups": 3}),
    "volume": (functional.conv3d, (1, 2, 4, 4, 4), (2, 2, 2, 2, 2), {"stride": 2}),
    "same": (functional.conv2d, (2, 3, 5, 5), (4, 3, 3, 3), {"padding": "same"}),
}


@pytest.fixture(params=CASES)
def case(request):
    function, shape, filters, settings = CASES[request.param]
    draw = torch.Generator().manual_seed(0)
    made = [
        torch.randn(size, generator=draw, dtype=torch.float64, requires_grad=True)
        for size in (shape, filters, filters[:1])
    ]

    def run(*tensors):
        return function(*tensors, **settings)

    return run, made


def second(run, tensors, rows, *, batched=False):
    """Rows through the derivative of the gradient of a curved function of the outputs."""
    loss = run(*tensors).pow(3).sum()
    slopes = torch.autograd.grad(loss, tensors, create_graph=True)
    flat = torch.cat([slope.flatten() for slope in slopes])
    if batched:
        return torch.autograd.grad(flat, tensors, rows, is_grads_batched=True)
    images = [torch.autograd.grad(flat, tensors, row, retain_graph=True) for row in rows]
    return [torch.stack(parts) for parts in zip(*images, strict=True)]


def test_values_and_both_derivatives_are_pytorchs(case):
    run, tensors = case
    rows = torch.randn(3, sum(tensor.numel() for tensor in tensors), dtype=torch.float64)
    truth = second(run, tensors, rows)
    with Convolutions():
        assert torch.allclose(run(*tensors), functional_value(run, tensors))
        found = second(run, tensors, rows)
        together = second(run, tensors, rows, batched=True)
    for one, many, expected in zip(found, together, truth, strict=True):
        assert torch.allclose(one, expected, rtol=1e-10, atol=1e-10)
        assert torch.allclose(many, expected, rtol=1e-10, atol=1e-10)


def functional_value(run, tensors):
    with torch._C.DisableTorchFunction():
        return run(*tensors)


def test_finite_differences_agree(case):
    run, tensors = case
    with Convolutions():
        assert torch.autograd.gradgradcheck(lambda *t: run(*t).sin().sum(), tensors[:2] + tensors[2:], fast_mode=True)


def test_inputs_without_gradient_and_only_some_filters():
    inputs = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    filters = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    with Convolutions():
        assert torch.autograd.gradgradcheck(lambda f: functional.conv2d(inputs, f).pow(2).sum(), filters)
        other = inputs.clone().requires_grad_()
        assert torch.autograd.gradgradcheck(lambda i: functional.conv2d(i, filters.detach()).pow(3).sum(), other)
