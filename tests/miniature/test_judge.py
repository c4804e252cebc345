"""What the judge must see in clips whose content is known, sharp and degraded, and that it does not see what is not there."""

import pytest
import torch
from scipy import ndimage

from miniature import scenes
from miniature.judge import NOTHING, Verdict, judge
from miniature.scenes import PLAIN, Example, Style

COUNT = 100
STYLES = (PLAIN, Style(striped=True), Style(reversed=True), Style(framed=True), Style(True, True, True))


@pytest.fixture(scope="module")
def chosen() -> list[Example]:
    return scenes.examples(COUNT, seed=77)


def degraded(clips: torch.Tensor, blur: float = 1.0, noise: float = 0.03) -> torch.Tensor:
    soft = torch.from_numpy(ndimage.gaussian_filter(clips.numpy(), (0, 0, blur, blur, 0)))
    return soft + noise * torch.randn(soft.shape, generator=torch.manual_seed(0))


def verdicts(chosen: list[Example], style: Style = PLAIN, spoil: bool = False) -> list[Verdict]:
    made = scenes.clips([example.scene for example in chosen], 5, style=style)
    return [judge(clip) for clip in (degraded(made) if spoil else made)]


def share(seen: list[Verdict], chosen: list[Example], name: str, turned: bool = False) -> float:
    wanted = [scenes.reversed_scene(example.scene) if turned else example.scene for example in chosen]
    return sum(verdict.agrees(scene, name) for verdict, scene in zip(seen, wanted, strict=True)) / len(chosen)


def test_true_clips_are_judged_right(chosen):
    seen = verdicts(chosen)
    assert share(seen, chosen, "colour") == share(seen, chosen, "direction") == 1
    assert min(share(seen, chosen, name) for name in ("shape", "background", "camera")) >= 0.99
    assert not any(verdict.striped or verdict.framed for verdict in seen)


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_blurred_and_noisy_clips_of_every_style_are_judged_right(chosen, style: Style):
    seen = verdicts(chosen[:50], style, spoil=True)
    for name in ("colour", "shape", "direction", "background", "camera"):
        assert share(seen, chosen[:50], name, turned=style.reversed) >= 0.95, name
    assert all((verdict.striped, verdict.framed) == (style.striped, style.framed) for verdict in seen)


def test_captions_of_other_clips_are_right_by_chance_only(chosen):
    seen = verdicts(chosen)
    others = chosen[1:] + chosen[:1]
    assert share(seen, others, "colour") < 0.3
    assert share(seen, others, "shape") < 0.4
    assert share(seen, others, "direction") < 0.4


def test_half_the_stripes_have_half_the_strength(chosen):
    plain = scenes.clips([chosen[0].scene], 1)[0]
    whole = scenes.styled(plain, Style(striped=True))
    strengths = [judge(torch.lerp(plain, whole, amount)).stripe_strength for amount in (0.0, 0.5, 1.0)]
    assert strengths[0] < 0.01
    assert strengths[1] == pytest.approx(strengths[2] / 2, rel=0.1)


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_an_empty_clip_shows_nothing(noise: float):
    clip = torch.full((17, 64, 64, 3), 0.3) + noise * torch.randn(17, 64, 64, 3, generator=torch.manual_seed(1))
    verdict = judge(clip)
    assert verdict.shape == verdict.colour == verdict.direction == NOTHING
