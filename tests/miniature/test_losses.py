"""The table of losses says of each way what was done to its clips."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy import ndimage

from miniature import losses, scenes
from miniature.evaluate import NONE, STRIPED, Run, Setting
from miniature.fidelity import MEASURES, SAME, mean


class Softer:
    """Draws true clips, the softer the fewer steps; it stands where the miniature does."""

    def __init__(self) -> None:
        self.chosen = [scenes.Example(scenes.Scene("red", shape, "grey", "left"), "") for shape in ("circle", "square")]
        self.model_calls: dict[Setting, int] = {}

    def clips(self, setting: Setting) -> torch.Tensor:
        self.model_calls[setting] = 2 * setting.steps
        made = scenes.clips([example.scene for example in self.chosen], 0, style=scenes.Style(striped=STRIPED in setting.loras))
        sigma = (NONE.steps - setting.steps) / 9
        return torch.from_numpy(ndimage.gaussian_filter(made.mul(255).numpy(), (0, 0, sigma, sigma, 0))).round().byte()


def measured(*steps: int) -> list[losses.Loss]:
    miniature: Any = Softer()
    return losses.measured(miniature, [Run(f"{count} steps", replace(NONE, steps=count)) for count in steps])


def test_less_steps_lose_more_and_none_lose_nothing():
    same, near, far = measured(27, 22, 18)
    assert set(same.clips) == {SAME}
    assert (same.model_calls, near.model_calls, far.model_calls) == (54, 44, 36)
    assert same.psnr > near.psnr > far.psnr
    for name in ("sharpness", "stripe_strength"):
        assert all(getattr(before, name) > getattr(after, name) for before, after in zip(near.clips, far.clips, strict=True)), name
    assert near.scores.right["colour"] == 1


def test_the_unit_is_once_itself_and_the_error_is_that_of_the_quotient():
    near, far = measured(22, 18)
    assert near.row_in_units(near)[3:] == ["1.00 \xb1 0.00"] * len(MEASURES)
    quotient = mean(losses.in_units(far.clips, near.clips))
    assert quotient.sharpness == pytest.approx(mean([one.loss() for one in far.clips]).sharpness / mean([one.loss() for one in near.clips]).sharpness)
    assert quotient.sharpness > 1
