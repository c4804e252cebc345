"""The measure of motion knows how far a shape goes, and an opening changes nothing but its own steps."""

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch

from comfyui import folder_table_kept
from miniature import evaluate, export, motion, scenes
from miniature.evaluate import NONE, REVERSED
from miniature.motion import Way
from sampling_runs import relative_error


@pytest.fixture(scope="module")
def miniature(pack: ModuleType) -> Iterator[evaluate.Miniature]:
    with folder_table_kept():
        yield evaluate.Miniature(export.MODELS, scenes.examples(2, evaluate.FIRST_PROMPTS))


@pytest.mark.parametrize("speed", scenes.SPEEDS)
def test_a_true_clip_goes_as_far_as_its_speed_says(speed: str):
    many = [scenes.Scene("white", shape, "blue", direction, speed) for shape in ("circle", "square") for direction in ("left", "down")]
    away = scenes.CAMERAS["static"][0]
    for clip in scenes.clips(many, 1):
        assert motion.distance(clip) == pytest.approx(scenes.SPEEDS[speed] * away * scenes.SIZE, rel=0.02)


def test_an_empty_clip_goes_nowhere():
    assert motion.distance(torch.full((scenes.FRAMES, scenes.SIZE, scenes.SIZE, 3), 0.5)) == 0


def test_half_the_way_is_half_without_an_error_and_noise_has_one():
    full = np.array([10.0, 20.0, 30.0])
    assert motion.share_of(full / 2, full) == (0.5, 0.0)
    assert motion.share_of(full / 2 + np.array([1.0, -2.0, 1.0]), full) == (0.5, pytest.approx(3**0.5 / 20 / 3**0.5))


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_an_opening_without_loras_at_the_same_guidance_is_the_run_itself(miniature: evaluate.Miniature, solver: str):
    setting = replace(NONE, steps=4, solver=solver, guidance=(motion.OPENING_GUIDANCE, 1.0))
    assert relative_error(motion.latents(miniature, Way("", setting, opening=1)), miniature.latents(setting)) < 1e-4


def test_an_opening_of_every_step_is_the_run_without_loras(miniature: evaluate.Miniature):
    guidance = motion.OPENING_GUIDANCE, motion.OPENING_GUIDANCE
    setting = replace(NONE, steps=3, solver="euler", guidance=guidance, loras=(REVERSED,))
    assert relative_error(motion.latents(miniature, Way("", setting, opening=3)), miniature.latents(replace(setting, loras=()))) < 1e-4
    assert relative_error(motion.latents(miniature, Way("", setting, opening=1)), miniature.latents(setting)) > 0.1


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_the_packs_own_opening_is_the_one_composed_here(miniature: evaluate.Miniature, solver: str):
    way = Way("", replace(motion.distilled(5), solver=solver), opening=2)
    assert relative_error(of_the_pack(miniature, way), motion.latents(miniature, way)) < 1e-4


def of_the_pack(miniature: evaluate.Miniature, way: Way) -> torch.Tensor:
    """A batch by LoRAs that begin after the opening, and guidance with an opening."""
    nodes, setting, captions = miniature.pack.nodes, way.setting, miniature.prompts("right")
    choices = [nodes.engine.lora.routing.LoraChoice(export.LORA.format(style, expert), scale, expert, nodes.engine.spans.Span(way.opening + 1))
               for style, expert, scale in setting.loras]
    experts = nodes.host.models.lora.apply(*(miniature.experts[name] for name in setting.experts), choices)[:2]
    guidance = nodes.engine.sampling.experts.Guidance(*setting.guidance, way.opening, motion.OPENING_GUIDANCE)
    prompts = miniature.encoded(captions), miniature.encoded([""] * len(captions))
    guider = nodes.host.sampling.run.guider(*experts, *prompts, guidance, setting.shift, "none", setting.boundary)
    empty = {"samples": torch.zeros(len(captions), 16, 5, scenes.SIZE // 8, scenes.SIZE // 8)}
    return nodes.host.sampling.run.sample(guider, empty, 0, setting.schedule())[0]["samples"]
