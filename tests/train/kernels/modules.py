"""Modules whose layers stand in each other's way: written in place, mixed, read twice, side by side, used twice."""

import torch
from torch import nn
from torch.nn import functional


class InPlace(nn.Module):
    """A residual block as torchvision writes it: rectifiers and sums that overwrite their inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=0.3)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = self.relu(self.norm1(self.conv1(inputs)))
        outputs = self.norm2(self.conv2(hidden))
        outputs += hidden
        return self.head(self.relu(outputs).mean((2, 3)))


class Mixed(nn.Module):
    """What the kernels do not take, between what they take."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.deep = nn.Conv2d(2, 4, 3, stride=2), nn.Conv2d(4, 4, 3, groups=4, padding="same")
        self.wide = nn.Conv2d(4, 6, 3, dilation=2, padding=2)
        self.norm, self.plain = nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(6, track_running_stats=False)
        self.flat, self.head = nn.BatchNorm1d(6), nn.Linear(6, 3)

    def forward(self, inputs):
        hidden = functional.gelu(self.norm(self.first(inputs)))
        hidden = functional.relu(self.plain(self.wide(self.deep(hidden))))
        return self.head(self.flat(functional.max_pool2d(hidden, 2).amax((2, 3))))


class Read(nn.Module):
    """What is normalised, and its sum with something, are also used elsewhere, so nothing may be overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, inputs):
        before = self.norm(self.conv(inputs))
        both = before + before.flip(3)
        after = functional.relu(both)
        return self.head((before * after + both + 2 * functional.relu(before)).mean((2, 3)))


class Parallel(nn.Module):
    """Two layers normalise the same images, and a view is taken before the images are overwritten."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.one, self.two = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.three, self.head = nn.BatchNorm2d(4), nn.Linear(8, 3)
        for norm, gain in ((self.one, -1.0), (self.two, 2.0)):
            nn.init.constant_(norm.weight, gain)

    def forward(self, inputs):
        images = self.conv(inputs)
        both = functional.relu(self.one(images)) + functional.relu(self.two(images)) * 0.5
        last = self.three(both)
        seen = last.flatten(2)
        last.relu_()
        return self.head(torch.cat([seen.mean(2), last.square().mean((2, 3))], 1))


class Twice(nn.Module):
    """A layer that is used twice, so that its running statistics move twice, and one with another momentum."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.norm, self.other, self.head = nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=0.5), nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = functional.relu(self.norm(self.conv(inputs)))
        return self.head(self.other(functional.relu(self.norm(self.again(hidden)))).mean((2, 3)))
