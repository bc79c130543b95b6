"""The kernels of convolutions against torch in float64: forward, and both gradients."""

import pytest
import torch

pytest.importorskip("triton")

from isthmus.train.kernels import convolution
from isthmus.train.kernels.convolution import Blocks

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HALF = torch.bfloat16 if torch.cuda.is_available() else torch.float16  # the interpreter cannot multiply bfloat16
FLOAT = {"dtype": torch.float32, "rounded": False}
LIMIT = 3e-6  # three rounded products keep 22 bits; sums over a few hundred of them


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.detach().double() - other.detach().double()).norm() / other.detach().double().norm())


def in_float64(images, weight, stride, padding):
    wide = [images.double().requires_grad_(), weight.double().requires_grad_()]
    outputs = torch.stack([torch.conv2d(x, w, None, stride, padding) for x, w in zip(*wide, strict=True)])
    slopes = drawn(*outputs.shape, seed=3)
    return outputs, slopes, torch.autograd.grad(outputs, wide, slopes.double())


CASES = {
    "few channels": (3, 16, (8, 8), (3, 3), (1, 1), (1, 1), None),
    "two places in a row": (16, 16, (8, 8), (3, 3), (1, 1), (1, 1), 2),
    "one place in a row": (16, 16, (8, 8), (3, 3), (1, 1), (1, 1), 1),
    "four places in a row": (4, 8, (8, 8), (3, 3), (1, 1), (1, 1), 4),
    "stride": (16, 32, (8, 8), (3, 3), (2, 2), (1, 1), None),
    "stride, single place": (16, 32, (8, 8), (1, 1), (2, 2), (0, 0), None),
    "odd sizes, two places": (5, 7, (9, 11), (3, 3), (2, 2), (1, 1), 2),
    "uneven": (5, 40, (9, 11), (5, 3), (3, 2), (0, 1), None),
    "more padding than window": (3, 4, (5, 6), (1, 2), (1, 1), (2, 3), None),
    "large window": (4, 6, (10, 8), (7, 7), (2, 2), (3, 3), None),
    "many channels": (70, 66, (4, 4), (3, 3), (1, 1), (1, 1), None),
}


@pytest.mark.parametrize("case", CASES)
def test_any_convolution_is_torch_s(case):
    seen, made, size, extents, stride, padding, pixels = CASES[case]
    images, weight = drawn(2, 3, seen, *size), drawn(2, made, seen, *extents, seed=1)
    outputs, slopes, (first, second) = in_float64(images, weight, stride, padding)
    found = convolution.convolve(images, weight, stride, padding, pixels=pixels, **FLOAT)
    assert apart(found, outputs) < LIMIT
    assert found.permute(0, 1, 3, 4, 2).is_contiguous()
    back = None if pixels is None else pixels * stride[1]
    found = convolution.image_slopes(slopes, weight, size, stride, padding, pixels=back, **FLOAT)
    assert apart(found, first) < LIMIT
    found = convolution.kernel_slopes(images, slopes, extents, stride, padding, pixels=pixels, **FLOAT)
    assert apart(found, second) < LIMIT


@pytest.mark.parametrize(
    "blocks",
    [Blocks(32, 32, 64, programs=4), Blocks(64, 16, 32), Blocks(16, 32, 16, programs=3, together=True)],
)
def test_however_the_product_is_cut_up(blocks):
    images, weight = drawn(2, 3, 16, 6, 6), drawn(2, 16, 16, 3, 3, seed=1)
    outputs, slopes, (_, second) = in_float64(images, weight, 1, 1)
    how = {"pixels": 2, "blocks": blocks, **FLOAT}
    assert apart(convolution.convolve(images, weight, (1, 1), (1, 1), **how), outputs) < LIMIT
    assert apart(convolution.kernel_slopes(images, slopes, (3, 3), (1, 1), (1, 1), **how), second) < LIMIT


def test_something_is_added_in_the_same_pass():
    weight, slopes, added = drawn(2, 4, 3, 3, 3), drawn(2, 3, 4, 6, 5, seed=1), drawn(2, 3, 3, 6, 5, seed=2)
    alone = convolution.image_slopes(slopes, weight, (6, 5), (1, 1), (1, 1), **FLOAT)
    both = convolution.image_slopes(slopes, weight, (6, 5), (1, 1), (1, 1), added, **FLOAT)
    torch.testing.assert_close(both, alone + added)


@pytest.mark.parametrize("layout", ["contiguous", "channels last", "expanded"])
def test_images_in_any_layout(layout):
    images = drawn(1 if layout == "expanded" else 2, 3, 4, 6, 5)
    if layout == "channels last":
        images = images.movedim(2, -1).contiguous().movedim(-1, 2)
    images, weight = images.expand(2, -1, -1, -1, -1), drawn(2, 5, 4, 3, 3, seed=1)
    outputs, _, _ = in_float64(images, weight, 1, 1)
    assert apart(convolution.convolve(images, weight, (1, 1), (1, 1), **FLOAT), outputs) < LIMIT


def test_sixteen_bits_are_rounded_once():
    images, weight = drawn(2, 3, 16, 6, 6).to(HALF), drawn(2, 16, 16, 3, 3, seed=1)
    outputs, slopes, _ = in_float64(images.float(), weight.to(HALF).float(), 1, 1)
    found = convolution.convolve(images, weight, (1, 1), (1, 1), dtype=HALF, rounded=False)
    assert found.dtype is HALF
    assert apart(found, outputs) < (2.5e-3 if HALF is torch.bfloat16 else 3e-4)  # half of the last bit, on average
    found = convolution.kernel_slopes(images, slopes.to(HALF), (3, 3), (1, 1), (1, 1), dtype=HALF, rounded=False)
    _, _, (_, second) = in_float64(images.float(), weight.to(HALF).float(), 1, 1)
    assert found.dtype is torch.float32
    assert apart(found, second) < 5e-3


def test_kernels_for_a_library():
    weight = drawn(1, 5, 7, 3, 2)
    for turned, right in ((False, weight[0]), (True, weight[0].flip(2, 3).transpose(0, 1))):
        found = convolution.for_library(weight, torch.float32, turned=turned)
        assert torch.equal(found, right)
        assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("extents", [(3, 2), (1, 1)])
def test_kernels_from_a_library(extents):
    weight = drawn(5, 70, *extents).contiguous(memory_format=torch.channels_last)
    found = convolution.from_library(weight.to(HALF))
    assert found.is_contiguous()
    assert torch.equal(found[0], weight.to(HALF).float())
