"""The shipped miniature draws what it is asked for, as plain image measures judge: guidance, experts and LoRAs each have their effect.

The whole evaluation, 256 prompts and every setting: python dev.py miniature evaluate.
"""

import colorsys
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
import torch

import videos
from comfyui import ROOT, folder_table_kept
from miniature import colours, evaluate, export, motion
from miniature.acceleration import distance_of_each
from miniature.evaluate import DEFAULT, FRAMED, NONE, REVERSED, STRIPED, Scores, Setting
from miniature.judge import judge
from miniature.recipe import STYLES
from miniature.scenes import PLAIN, Style, examples, scene_of

PROMPTS = 8
HALF = 4  # of them are enough where a LoRA is seen in nearly every clip or in none
FEW = replace(NONE, steps=8)


class Drawn:
    """Scores of the miniature in a setting, drawn once each."""

    def __init__(self, miniature: evaluate.Miniature) -> None:
        self.miniature = miniature
        self.latents, self.clips, self.scores = cache(miniature.latents), cache(self._clips), cache(self._scores)

    def _clips(self, setting: Setting, count: int) -> torch.Tensor:
        return self.miniature.decoded(self.latents(setting, count))

    def _scores(self, setting: Setting, style: Style, count: int = PROMPTS) -> Scores:
        return evaluate.scores(self.miniature.chosen[:count], self.clips(setting, count), style)


@pytest.fixture(scope="module")
def drawn(pack: ModuleType) -> Iterator[Drawn]:
    with folder_table_kept():
        yield Drawn(evaluate.Miniature(export.MODELS, examples(PROMPTS, evaluate.FIRST_PROMPTS)))


def test_the_files_are_small_enough_for_the_repository():
    sizes = [path.stat().st_size for path in export.MODELS.rglob("*.safetensors")]
    assert max(sizes) <= export.MAX_FILE
    assert sum(sizes) <= export.MAX_TOGETHER


def test_colour_shape_and_motion_are_those_of_the_prompt(drawn: Drawn):
    right = drawn.scores(DEFAULT, PLAIN).right
    assert right["colour"] >= 0.9
    assert right["shape"] >= 0.75
    assert right["direction"] >= 0.85


def test_previews_show_the_colours_of_the_clips(drawn: Drawn):
    """But for the bias, which lights up the background."""
    true = colours.small(drawn.clips(DEFAULT, PROMPTS).float() / 255)
    shown = drawn.miniature.previewed(drawn.latents(DEFAULT, PROMPTS))
    for example, clip, preview in zip(drawn.miniature.chosen, true.flatten(1, 3), shown.flatten(1, 3), strict=True):
        away = (clip - clip.median(dim=0).values).norm(dim=-1)
        shape, background = away > 0.75 * away.max(), away < 0.1
        contrast, seen = (pixels[shape].mean(dim=0) - pixels[background].mean(dim=0) for pixels in (clip, preview))
        assert torch.cosine_similarity(contrast, seen, dim=0) > 0.75
        if example.scene.colour != "white":
            assert between_hues(clip[shape].mean(dim=0), preview[shape].mean(dim=0)) < 30
    assert (shown - true).norm(dim=-1).mean() < 0.4


def between_hues(*colours: torch.Tensor) -> float:
    """Degrees from one colour (3,) in 0..1 to another around the circle."""
    one, other = (colorsys.rgb_to_hsv(*colour.tolist())[0] for colour in colours)
    return 360 * min(abs(one - other), 1 - abs(one - other))


def test_the_default_is_nearer_to_none_than_magcache_with_fewer_calls(drawn: Drawn):
    """On each of these prompts; on more of them, at other settings, with numbers: python dev.py miniature acceleration."""
    exact, ours, peer = (drawn.latents(setting, PROMPTS) for setting in (NONE, DEFAULT, replace(NONE, acceleration=evaluate.MAGCACHE)))
    distance, of_peer = (torch.tensor(distance_of_each(made, exact)) for made in (ours, peer))
    assert (distance < of_peer).float().mean() >= 0.75
    assert distance.mean() < 0.9 * of_peer.mean()
    calls, all_calls = drawn.miniature.model_calls, drawn.miniature.all_calls
    assert calls[DEFAULT] <= 0.55 * all_calls[DEFAULT] < calls[replace(NONE, acceleration=evaluate.MAGCACHE)]


def test_another_prompt_draws_something_else(drawn: Drawn):
    assert drawn.scores(replace(FEW, prompts="wrong"), PLAIN, HALF).right["all"] <= 0.1


def test_without_guidance_fewer_clips_are_right(drawn: Drawn):
    assert drawn.scores(replace(FEW, guidance=(1.0, 1.0)), PLAIN).right["all"] < drawn.scores(FEW, PLAIN).right["all"]


def test_the_distilled_pair_draws_in_four_steps_without_guidance_what_is_asked_for(drawn: Drawn):
    four = motion.distilled(4)
    right = drawn.scores(four, PLAIN).right
    assert right["colour"] >= 0.9 and right["direction"] >= 0.85 and right["shape"] >= 0.75
    assert drawn.miniature.model_calls[four] == 4


def test_swapped_experts_draw_worse(drawn: Drawn):
    assert drawn.scores(replace(FEW, experts=("low", "high")), PLAIN).right["all"] < drawn.scores(FEW, PLAIN).right["all"] - 0.1


def test_a_lora_pair_does_what_it_was_trained_for_and_nothing_at_scale_0(drawn: Drawn):
    striped, none = (replace(FEW, loras=(("striped", "auto", scale),)) for scale in (1.0, 0.0))
    assert drawn.scores(striped, STYLES["striped"], HALF).striped >= 0.9
    assert drawn.scores(FEW, PLAIN).striped <= 0.1
    assert torch.equal(drawn.miniature.latents(none, 1), drawn.miniature.latents(FEW, 1))


def test_both_lora_pairs_together_do_both(drawn: Drawn):
    both = drawn.scores(replace(FEW, loras=(STRIPED, REVERSED)), Style(striped=True, reversed=True), HALF)
    assert both.striped >= 0.8
    assert both.right["direction"] >= 0.6  # by chance 0.2


def test_a_lora_for_one_expert_works_on_that_expert_alone(drawn: Drawn):
    assert drawn.scores(replace(FEW, loras=(FRAMED,)), STYLES["framed"], HALF).framed >= 0.9
    assert drawn.scores(FEW, PLAIN).framed <= 0.1


def test_the_demo_answers_its_prompt(tmp_path: Path):
    prompt = "a yellow square moves down over a purple background"
    command: list[str | Path] = [sys.executable, ROOT / "tests" / "demo.py", prompt, "--lora", "striped"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    (path,) = (Path(line) for line in output.splitlines() if line.endswith(".mp4"))
    verdict = judge(torch.from_numpy(videos.pixels(path)) / 255)
    assert verdict.agrees(scene_of(prompt), "colour", "direction", "background")
    assert verdict.striped
    assert path.with_suffix(".png").exists()
    assert "miniature" in output
