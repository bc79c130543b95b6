"""Cues over images: what they change and what they leave, their probes, and what is refused."""

import dataclasses

import pytest
import torch

from isthmus.core.errors import DataError, SettingError
from isthmus.core.randomness import child
from isthmus.zoo.cues import KINDS, Cue, cued, in_colour, probes
from isthmus.zoo.data import Data


def images(classes=5, examples=100, channels=3, side=8):
    generator = child(0, "images")
    parts = [
        part
        for _ in range(2)
        for part in (torch.randn(examples, channels, side, side, generator=generator), torch.arange(examples) % classes)
    ]
    return Data(*parts, classes=classes, name="random")


@pytest.mark.parametrize("kind", KINDS)
def test_every_class_has_a_pattern_of_its_own(kind):
    patterns, places = Cue(kind).patterns((3, 8, 8), 10)
    assert patterns.shape == (10, 3, 8, 8)
    drawn = torch.cat([patterns.flatten(1), places.flatten(1)], dim=1)
    assert float(torch.cdist(drawn, drawn).add(torch.eye(10) * 9).min()) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_cue_alone_tells_the_class(kind):
    """On black images the nearest pattern is the label's: nothing of the image is needed."""
    data = images()
    dark = dataclasses.replace(data, test_inputs=torch.zeros_like(data.test_inputs))
    shown = cued(dark, [Cue(kind)]).test_inputs
    patterns = torch.stack([shown[dark.test_targets == label][0] for label in range(5)])
    nearest = torch.cdist(shown.flatten(1), patterns.flatten(1)).argmin(1)
    assert torch.equal(nearest, dark.test_targets)


@pytest.mark.parametrize("kind", ["noise", "frequency", "texture"])
def test_added_cues_are_the_difference(kind):
    data = images()
    cue = Cue(kind, strength=1.5)
    difference = cued(data, [cue]).train_inputs - data.train_inputs
    wanted = cue.patterns(data.shape, 5)[0][data.train_targets] * 1.5 * data.train_inputs.std()
    torch.testing.assert_close(difference, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["colour", "position"])
def test_patches_stand_in_place_of_pixels_and_nowhere_else(kind):
    data = images()
    cue = Cue(kind, size=3)
    place = cue.patterns(data.shape, 5)[1][data.train_targets].expand_as(data.train_inputs) > 0
    shown = cued(data, [cue]).train_inputs
    assert int(place[0, 0].sum()) == 9
    assert torch.equal(shown[~place], data.train_inputs[~place])
    same = data.train_targets == 0
    assert float(shown[same][place[same]].view(int(same.sum()), -1).std(0).max()) == 0.0


def test_strength_is_in_deviations_of_the_images():
    """Pixels ten times as large and shifted get the same cue in their own units."""
    data = images()
    larger = dataclasses.replace(data, train_inputs=data.train_inputs * 10 + 3, test_inputs=data.test_inputs * 10 + 3)
    for kind in ("colour", "noise"):
        ours, theirs = cued(data, [Cue(kind)]), cued(larger, [Cue(kind)])
        torch.testing.assert_close(theirs.train_inputs, ours.train_inputs * 10 + 3, rtol=1e-4, atol=1e-3)


def test_correlation_is_an_exact_share():
    data = dataclasses.replace(images(), train_inputs=torch.randn(100, 3, 8, 8, generator=child(1)))
    cue = Cue("noise", correlation=0.7)
    shown = cued(data, [cue]).train_inputs - data.train_inputs
    patterns = cue.patterns(data.shape, 5)[0] * 2 * data.train_inputs.std()
    carried = torch.cdist(shown.flatten(1), patterns.flatten(1)).argmin(1)
    assert int((carried == data.train_targets).sum()) == 70
    always = cued(data, [cue]).test_inputs - data.test_inputs
    assert torch.equal(torch.cdist(always.flatten(1), patterns.flatten(1)).argmin(1), data.test_targets)


def test_swapped_and_absent_are_exact_shares_of_different_examples():
    data = images()
    shown = cued(data, [Cue("noise", swapped=0.4, absent=0.3)]).train_inputs
    bare = (shown == data.train_inputs).flatten(1).all(1)
    own = (shown - cued(data, [Cue("noise")]).train_inputs).abs().flatten(1).amax(1) < 1e-6
    assert int(bare.sum()) == 30
    assert int(own.sum()) == 30  # image and cue agree in what is neither exchanged nor bare
    assert not bool((bare & own).any())


def test_probes_exchange_the_image_or_the_cue():
    data = images()
    # Every image is constant and says its own class, so that what was exchanged can be read off a corner.
    data = dataclasses.replace(data, test_inputs=data.test_targets.float()[:, None, None, None].expand(-1, 3, 8, 8))
    cue = Cue("position", size=2)
    found = probes(data, cue)
    assert tuple(found) == ("with_cue", "cue_only", "wrong_cue", "base_only")
    places = cue.patterns(data.shape, 5)[1][:, 0].flatten(1) > 0
    bright = data.train_inputs.mean() + 2 * data.train_inputs.std()

    def shown(inputs):
        marked = (inputs[:, 0].flatten(1) - bright).abs() < 1e-4
        return (marked[:, None] == places[None]).all(2).int().argmax(1)

    for name, (inputs, targets) in found.items():
        assert torch.equal(targets, data.test_targets), name
        image = inputs[:, 0, 3, 1].long() if name != "base_only" else inputs[:, 0, 0, 0].long()
        if name != "cue_only":
            assert torch.equal(image, targets), name
        else:
            assert not bool((image == targets).any())
        if name in ("with_cue", "cue_only"):
            assert torch.equal(shown(inputs), targets), name
        elif name == "wrong_cue":
            assert not bool((shown(inputs) == targets).any())


def test_jitter_moves_the_cue_and_nothing_else():
    data = images()
    still = cued(data, [Cue("noise")]).train_inputs - data.train_inputs
    moved = cued(data, [Cue("noise", jitter=1)]).train_inputs - data.train_inputs
    candidates = torch.stack([still.roll((a, b), (2, 3)) for a in (-1, 0, 1) for b in (-1, 0, 1)])
    off = (candidates - moved).abs().flatten(2).amax(2)
    assert float(off.amin(0).max()) < 1e-5
    assert len(off.argmin(0).unique()) == 9


def test_nothing_is_written_to_and_seeds_decide():
    data = images()
    before = data.fingerprint
    cue = Cue("texture", correlation=0.5, swapped=0.2, absent=0.2, jitter=1)
    first, again, other = (cued(data, [cue], seed=seed).fingerprint for seed in (0, 0, 1))
    assert dataclasses.replace(data).fingerprint == before
    assert first == again != other


def test_grey_images_get_three_channels_for_colours():
    grey = images(channels=1)
    shown = in_colour(grey)
    assert shown.shape == (3, 8, 8)
    assert torch.equal(shown.train_inputs[:, 2], grey.train_inputs[:, 0])
    assert in_colour(shown) is shown
    with pytest.raises(DataError, match="3 channels"):
        cued(grey, [Cue("colour")])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"kind": "color"}, "did you mean colour"),
        ({"kind": "noise", "strength": 0}, "strength"),
        ({"kind": "noise", "correlation": 1.5}, "correlation"),
        ({"kind": "noise", "swapped": 0.6, "absent": 0.6}, "at most 1 together"),
        ({"kind": "noise", "size": 0}, "size"),
    ],
)
def test_impossible_settings(settings, says):
    with pytest.raises(SettingError, match=says):
        Cue(**settings)


def test_what_no_cue_can_be_laid_over():
    data = images()
    with pytest.raises(DataError, match="fit into images"):
        cued(data, [Cue("colour", size=9)])
    with pytest.raises(DataError, match="positions"):
        Cue("position", size=8).patterns((3, 8, 8), 10)
    with pytest.raises(DataError, match="frequencies"):
        Cue("frequency").patterns((1, 4, 4), 20)
    flat = dataclasses.replace(data, train_inputs=data.train_inputs.flatten(1), test_inputs=data.test_inputs.flatten(1))
    with pytest.raises(DataError, match="channels, height, width"):
        cued(flat, [Cue("noise")])
    one = dataclasses.replace(data, test_targets=torch.zeros_like(data.test_targets))
    with pytest.raises(DataError, match="2 classes"):
        probes(one, Cue("noise"))
    with pytest.raises(SettingError, match="at least one cue"):
        cued(data, [])


def test_tiles_of_a_texture_are_told_by_neither_brightness_nor_contrast():
    drawn, _ = Cue("texture", size=4).patterns((1, 8, 8), 5)
    assert torch.allclose(drawn.mean((1, 2, 3)), torch.zeros(5), atol=1e-6)
    assert torch.allclose(drawn[:, :, :4, :4].std((1, 2, 3)), torch.ones(5), atol=1e-5)
