"""Cues laid over images: a second, known way to tell the class, which a network can learn, keep or forget.

A cue is a set of patterns, one for each class, either added to the image (noise, frequency, texture) or put in place of
some of its pixels (colour, position). Amplitudes are in deviations of the training images, so one strength means the
same for normalised and for raw pixels.

Reference: Hess et al., "Forgetting of task-specific knowledge in model merging-based continual learning", arXiv
2507.23311, for the coloured patch and the grey noise pattern; the other kinds are variations.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from isthmus.core.errors import DataError, SettingError, listed, near
from isthmus.core.randomness import child, child_seed
from isthmus.zoo.data import Data
from isthmus.zoo.patterns import gratings, hues, places

KINDS = ("colour", "noise", "position", "frequency", "texture")


@dataclasses.dataclass(frozen=True)
class Cue:
    """One kind of cue and how clearly it speaks.

    Attributes:
        kind: ``colour`` (a patch in the upper left corner whose hue tells the class), ``noise`` (a fixed grey pattern
            over the whole image), ``position`` (a bright square whose place tells the class), ``frequency`` (a grating)
            or ``texture`` (a small tile, repeated).
        strength: amplitude, in deviations of the training images.
        correlation: share of the training images that carry the cue of their own class; the others carry another
            class's, evenly drawn. At 1 / classes the cue says nothing.
        swapped: share of the training images that are exchanged for an image of another class while cue and label stay,
            so that only the cue tells the label. Without any, a network that already knows the images has no reason to
            learn the cue.
        absent: share of the training images without the cue, on which the image alone tells the label. Without any, a
            network comes to trust the cue alone and gives up the images. Exchanged images always have the cue.
        size: side of the patch, the square or the tile in pixels; a quarter of the image, at least 2, if left out.
        jitter: each example's cue is moved by up to so many pixels in both directions (cyclically).
        seed: of the patterns.

    Example:
        >>> from isthmus.zoo import load_data
        >>> data = load_data("digits").limited(20)
        >>> cued(data, [Cue("noise")]).train_inputs.shape
        torch.Size([20, 1, 8, 8])
    """

    kind: str
    strength: float = 2.0
    correlation: float = 1.0
    swapped: float = 0.0
    absent: float = 0.0
    size: int | None = None
    jitter: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"a cue must be one of {listed(KINDS)}, got {self.kind}{near(self.kind, KINDS)}")
        if not (math.isfinite(self.strength) and self.strength > 0):
            raise SettingError(f"strength must be above 0, got {self.strength}")
        for name in ("correlation", "swapped", "absent"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.swapped + self.absent > 1:
            raise SettingError(f"swapped and absent must be at most 1 together, got {self.swapped + self.absent:g}")
        for name, low in (("size", 1), ("jitter", 0)):
            value = getattr(self, name)
            if value is not None and value < low:
                raise SettingError(f"{name} must be at least {low} pixels, got {value}")

    def patterns(
        self, shape: Sequence[int], classes: int
    ) -> tuple[Float[Tensor, "classes channels height width"], Float[Tensor, "classes 1 height width"]]:
        """The pattern of each class, with amplitudes of at most about 1, and where it stands in place of the image.

        Args:
            shape: channels, height, width.
            classes: how many patterns.

        Raises:
            DataError: the images have too few channels or pixels for so many different patterns.
        """
        if len(shape) != 3:
            raise DataError(f"cues are laid over images of (channels, height, width), got inputs of {tuple(shape)}")
        channels, height, width = shape
        side = self.size or max(2, min(height, width) // 4)
        if side > min(height, width):
            raise DataError(f"a cue of {side} pixels must fit into images of {height}×{width}; set a smaller size")
        drawn = torch.zeros(classes, channels, height, width)
        place = torch.zeros(classes, 1, height, width)
        if self.kind == "colour":
            if channels != 3:
                raise DataError(f"a colour cue needs images of 3 channels, got {channels}; see in_colour")
            drawn[:, :, :side, :side] = hues(classes)[:, :, None, None]
            place[:, :, :side, :side] = 1
        elif self.kind == "position":
            for which, (top, left) in enumerate(places(classes, height, width, side)):
                drawn[which, :, top : top + side, left : left + side] = 1
                place[which, :, top : top + side, left : left + side] = 1
        elif self.kind == "noise":
            generator = child(self.seed, "cue", "noise")
            drawn += torch.randn((classes, 1, height, width), generator=generator).clamp_(-2, 2)
        elif self.kind == "texture":
            drawn += self._tiles(classes, height, width, side)
        else:
            drawn += gratings(classes, height, width)
        return drawn, place

    def _tiles(self, classes: int, height: int, width: int, side: int) -> Tensor:
        tiles = torch.randn((classes, 1, side, side), generator=child(self.seed, "cue", "texture"))
        tiles = tiles - tiles.mean((2, 3), keepdim=True)  # a tile must not be told by its brightness
        tiles = tiles / tiles.std((2, 3), keepdim=True).clamp_min(1e-6)
        return tiles.repeat(1, 1, -(-height // side), -(-width // side))[:, :, :height, :width]


def in_colour(data: Data) -> Data:
    """Grey images repeated over three channels, so that a colour cue can be laid over them; others as they are."""
    if len(data.shape) != 3 or data.shape[0] != 1:
        return data
    return dataclasses.replace(
        data,
        train_inputs=data.train_inputs.expand(-1, 3, -1, -1).contiguous(),
        test_inputs=data.test_inputs.expand(-1, 3, -1, -1).contiguous(),
        name=f"{data.name} in three channels",
    )


def cued(data: Data, cues: Sequence[Cue], *, seed: int = 0) -> Data:
    """The same data with cues over every image, training and test.

    Training images follow each cue's ``correlation``; test images always carry the right cue.

    Args:
        data: images, ``(examples, channels, height, width)``, floating-point.
        cues: laid over each other in this order; ``swapped`` and ``absent`` of the first count, for all of them.
        seed: of which examples get a wrong cue, none, or another image.

    Raises:
        DataError: the inputs are no images, or too small.
        SettingError: no cue was given.

    Cost: one copy of the data.
    """
    if not cues:
        raise SettingError("at least one cue must be given, got none")
    inputs, targets = data.train_inputs, data.train_targets
    order = torch.randperm(len(targets), generator=child(seed, "cue", "which")).to(targets.device)
    exchanged = order[: round(cues[0].swapped * len(targets))]
    bare = order[len(order) - round(cues[0].absent * len(targets)) :]
    if len(exchanged):
        inputs = inputs.clone()
        inputs[exchanged] = data.train_inputs[_of_another_class(targets, targets[exchanged], seed)]
    test = data.test_inputs
    for number, cue in enumerate(cues):
        shown = _shown(targets, cue, data.classes, child(seed, "cue", "correlation", number))
        inputs = lay(inputs, cue, shown, data, seed=seed)
        test = lay(test, cue, data.test_targets, data, seed=child_seed(seed, "test"))
    inputs[bare] = data.train_inputs[bare]
    name = f"{data.name} with {' and '.join(cue.kind for cue in cues)}"
    return dataclasses.replace(data, train_inputs=inputs, test_inputs=test, name=name)


def lay(
    inputs: Float[Tensor, "examples channels height width"],
    cue: Cue,
    shown: Int64[Tensor, " examples"],
    data: Data,
    *,
    seed: int = 0,
) -> Float[Tensor, "examples channels height width"]:
    """Lay a cue over images.

    Args:
        inputs: the images.
        cue: which.
        shown: the class whose pattern each image gets.
        data: its training images give centre and amplitude.
        seed: of the jitter.

    Raises:
        DataError: the images are not floating-point.
    """
    if not inputs.is_floating_point():
        raise DataError(f"cues are laid over floating-point images, got {inputs.dtype}")
    patterns, places = (part.to(inputs) for part in cue.patterns(data.shape, data.classes))
    centre, amplitude = data.train_inputs.mean(), data.train_inputs.std() * cue.strength
    if not cue.jitter:
        own, place = patterns[shown] * amplitude, places[shown]
    else:
        generator = child(seed, "cue", "jitter", cue.kind)
        moves = torch.randint(-cue.jitter, cue.jitter + 1, (len(inputs), 2), generator=generator).to(inputs.device)
        own, place = _rolled(patterns[shown], moves) * amplitude, _rolled(places[shown], moves)
    return torch.where(place > 0, centre + own, inputs + own)


def probes(data: Data, cue: Cue, *, seed: int = 0) -> dict[str, tuple[Tensor, Tensor]]:
    """The test images in four counterfactual forms, each with the labels that a network is judged by.

    - ``with_cue``: image and cue agree.
    - ``cue_only``: the image is exchanged for one of another class; the label is the cue's.
    - ``wrong_cue``: the image is kept and the cue is another class's; the label is the image's.
    - ``base_only``: no cue.

    Args:
        data: without cues.
        cue: which.
        seed: of the exchanges.

    Raises:
        DataError: fewer than two classes among the test labels.
    """
    inputs, targets = data.test_inputs, data.test_targets
    if int(targets.min()) == int(targets.max()):
        raise DataError("a wrong cue needs test images of at least 2 classes, got 1")
    other = _of_another_class(targets, targets, seed)
    wrong = _another_class(targets, data.classes, child(seed, "cue", "wrong"))
    return {
        "with_cue": (lay(inputs, cue, targets, data, seed=seed), targets),
        "cue_only": (lay(inputs[other], cue, targets, data, seed=seed), targets),
        "wrong_cue": (lay(inputs, cue, wrong, data, seed=seed), targets),
        "base_only": (inputs, targets),
    }


def _shown(targets: Tensor, cue: Cue, classes: int, generator: torch.Generator) -> Tensor:
    """The class whose pattern each training image gets: exactly the rounded share its own."""
    wrong = len(targets) - round(cue.correlation * len(targets))
    if not wrong:
        return targets
    which = torch.randperm(len(targets), generator=generator)[:wrong].to(targets.device)
    shown = targets.clone()
    shown[which] = _another_class(targets[which], classes, generator)
    return shown


def _another_class(targets: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    shift = torch.randint(1, max(2, classes), (len(targets),), generator=generator).to(targets.device)
    return (targets + shift) % classes


def _of_another_class(pool: Tensor, targets: Tensor, seed: int) -> Tensor:
    """For each target the number of an example of the pool, evenly drawn among those of other classes."""
    generator = child(seed, "cue", "swapped for")
    found = torch.empty(len(targets), dtype=torch.int64, device=pool.device)
    for label in targets.unique():
        mine = (targets == label).nonzero().flatten()
        others = (pool != label).nonzero().flatten()
        if not len(others):
            raise DataError("images are exchanged between classes, so there must be at least 2 classes, got 1")
        drawn = torch.randint(len(others), (len(mine),), generator=generator)
        found[mine] = others[drawn.to(others.device)]
    return found


def _rolled(images: Tensor, moves: Tensor) -> Tensor:
    """Each image moved cyclically by its own number of rows and columns."""
    count, _, height, width = images.shape
    rows = (torch.arange(height, device=images.device)[None] - moves[:, :1]) % height
    columns = (torch.arange(width, device=images.device)[None] - moves[:, 1:]) % width
    picked = images[torch.arange(count, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.movedim(-1, 1)
