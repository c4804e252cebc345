"""Each measure of fidelity reads what was done to a clip, in its unit, and nothing where nothing was done."""

from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage

from miniature import scenes
from miniature.fidelity import SAME, STRIPES, Fidelity, fidelity, mean, standard_error
from miniature.scenes import SHAPES, Scene, Style

COLOURS = (("red", "blue"), ("yellow", "grey"), ("green", "purple"), ("white", "red"), ("orange", "green"))
SCENES = [Scene(colour, shape, background, "right", "slow") for shape, (colour, background) in zip(SHAPES, COLOURS, strict=True)]
STRIPED = Style(striped=True)


def clips(style: Style = scenes.PLAIN) -> torch.Tensor:
    return scenes.clips(SCENES, 3, style=style)


def measured(changed: torch.Tensor, style: Style = scenes.PLAIN) -> list[Fidelity]:
    return [fidelity(clip, reference) for clip, reference in zip(changed, clips(style), strict=True)]


def softened(made: torch.Tensor, sigma: float) -> torch.Tensor:
    return torch.from_numpy(ndimage.gaussian_filter(made.numpy(), (0, 0, sigma, sigma, 0)))


def test_a_clip_against_itself_has_lost_nothing():
    assert measured(clips(STRIPED), STRIPED) == [SAME] * len(SCENES)
    plain = measured(clips())
    assert all(getattr(one, name) == getattr(SAME, name) for one in plain for name in ("sharpness", "position", "area", "flicker"))
    assert all(np.isnan(getattr(one, name)) for one in plain for name in STRIPES)


def test_blur_lowers_sharpness_step_by_step():
    softer = [[one.sharpness for one in measured(softened(clips(), sigma))] for sigma in (0.5, 1.0, 1.5, 2.0)]
    assert all(after < 0.95 * before for steps in zip(*softer, strict=True) for before, after in pairwise((1.0, *steps)))


def test_the_slope_of_a_soft_edge_is_that_of_its_ramp():
    """Blur turns an edge into the integral of a Gaussian, whose mean slope is 1 / (2 sqrt(pi) sigma)."""
    slopes = [measured(softened(clips(), sigma))[1].sharpness for sigma in (1.5, 2.0)]
    assert slopes[0] / slopes[1] == pytest.approx(2.0 / 1.5, rel=0.1)


@pytest.mark.parametrize("shift", [(0, 1), (2, 0), (-1, 2)], ids=str)
def test_a_shift_is_read_in_pixels(shift: tuple[int, int]):
    for one in measured(clips().roll(shift, dims=(2, 3))):
        assert one.position == pytest.approx(np.hypot(*shift), abs=0.1)
        assert one.area == pytest.approx(0, abs=0.01)
        assert one.sharpness == pytest.approx(1, abs=0.01)


def test_a_shift_by_a_part_of_a_pixel_is_read_as_well():
    half = (clips() + clips().roll(1, dims=3)) / 2
    assert all(one.position == pytest.approx(0.5, abs=0.1) for one in measured(half))


@pytest.mark.parametrize("amplitude", [0.004, 0.01, 0.02])
def test_brightness_that_alternates_is_read_in_levels(amplitude: float):
    signs = torch.tensor([(-1.0) ** frame for frame in range(scenes.FRAMES)])[:, None, None, None]
    for one in measured(clips() + amplitude * signs):
        assert one.flicker == pytest.approx(255 * amplitude, rel=0.02)
        assert one.position < 0.1


def test_brightness_that_drifts_is_no_flicker():
    drift = torch.linspace(-0.02, 0.02, scenes.FRAMES)[:, None, None, None]
    assert all(one.flicker < 0.05 for one in measured(clips() + drift))


@pytest.mark.parametrize("scale", [0.8, 0.9, 1.1])
def test_scaling_changes_the_area_by_the_factor_squared(monkeypatch: pytest.MonkeyPatch, scale: float):
    reference = clips()
    monkeypatch.setitem(scenes.CAMERAS, "static", (0.9 * scale, 0.9 * scale))
    for one in (fidelity(clip, given) for clip, given in zip(clips(), reference, strict=True)):
        assert one.area == pytest.approx(abs(scale**2 - 1), abs=0.02)


def test_weaker_stripes_read_weaker_and_as_regular():
    for amount in (0.75, 0.5):
        for one in measured(torch.lerp(clips(), clips(STRIPED), amount), STRIPED):
            assert one.stripe_strength == pytest.approx(amount, rel=0.1)
            assert one.stripe_regularity > 0.95


def test_broken_stripes_read_less_regular_and_weaker():
    """One stripe in four is missing; or all of them in a quarter of the width."""
    short, narrow = clips(STRIPED), clips(STRIPED)
    short[:, :, 20:36], narrow[:, :, :, 8:24] = clips()[:, :, 20:36], clips()[:, :, :, 8:24]
    for one in (*measured(short, STRIPED), *measured(narrow, STRIPED)):
        assert one.stripe_regularity < 0.8
        assert one.stripe_strength < 0.9


def test_a_shape_that_is_gone_is_a_loss_in_every_frame():
    one = fidelity(torch.full_like(clips()[0], 0.3), clips()[0])
    assert (one.sharpness, one.position, one.area) == (0, scenes.SIZE / 2, 1)


def test_a_reference_without_a_shape_or_of_another_size_is_refused():
    with pytest.raises(ValueError, match="no shape"):
        fidelity(clips()[0], torch.full_like(clips()[0], 0.3))
    with pytest.raises(ValueError, match="one size"):
        fidelity(clips()[0][1:], clips()[0])


def test_means_and_losses_are_those_of_each_measure():
    many = [Fidelity(0.9, 1.0, 0.0, 2.0, 1.2, 1.0), Fidelity(1.1, 3.0, 0.2, 2.0, 1.2, 0.8)]
    assert astuple(mean(many)) == pytest.approx((1.0, 2.0, 0.1, 2.0, 1.2, 0.9))
    assert astuple(mean([one.loss() for one in many])) == pytest.approx((0.1, 2.0, 0.1, 2.0, 0.2, 0.1))
    assert astuple(standard_error(many)) == pytest.approx((0.1, 1.0, 0.1, 0.0, 0.0, 0.1))
