"""The measure of motion knows how far a shape goes, and an opening changes nothing but its own steps."""

from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
import torch

from comfyui import folder_table_kept
from engine.sampling.experts import OPENING_GUIDANCE, is_high_noise
from engine.sampling.schedules import TRAIN_TIMESTEPS
from engine.sampling.solvers import solver_named
from miniature import evaluate, export, motion, scenes
from miniature.evaluate import NONE, REVERSED, Setting
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
@pytest.mark.parametrize("loras", [(), (REVERSED,), motion.distilled(4).loras], ids=["no LoRA", "reversed", "distilled"])
def test_an_opening_is_the_one_composed_by_hand(miniature: evaluate.Miniature, solver: str, loras: tuple[tuple[str, str, float], ...]):
    setting = replace(NONE, steps=5, solver=solver, guidance=(1.0, 2.0), loras=loras)
    assert relative_error(miniature.latents(setting, opening=2), by_hand(miniature, setting, 2)) < 1e-4
    assert miniature.model_calls[setting] == 2 * 2 + 1 + 2 * 2


@torch.inference_mode()
def by_hand(miniature: evaluate.Miniature, setting: Setting, opening: int) -> torch.Tensor:
    """The solver alone, over the experts with the LoRAs on them and over those without."""
    import comfy.model_management
    import comfy.sample
    solver, levels, captions = solver_named(setting.solver), setting.schedule().sigmas().tolist(), miniature.prompts("right")
    experts = {True: miniature.patched(replace(setting, loras=())), False: miniature.patched(setting)}
    guidances = {True: (OPENING_GUIDANCE, OPENING_GUIDANCE), False: setting.guidance}
    prompts = [miniature.encoded(texts)[0][0] for texts in (captions, [""] * len(captions))]

    def predict(x: torch.Tensor, sigma: float) -> torch.Tensor:
        opens, timestep = levels.index(sigma) < opening, solver.timestep(sigma)
        side = 0 if is_high_noise(timestep, setting.boundary) else 1
        expert, guidance, t = experts[opens][side], guidances[opens][side], timestep / TRAIN_TIMESTEPS
        comfy.model_management.load_models_gpu([expert])
        right, *without = [expert.model.apply_model(x, x.new_full((len(x),), t), c_crossattn=prompt,
                                                    transformer_options=expert.model_options["transformer_options"])
                           for prompt in (prompts if guidance != 1.0 else prompts[:1])]
        denoised = torch.lerp(without[0], right, guidance) if without else right
        return x - sigma / t * (x - denoised)

    empty = torch.zeros(len(captions), 16, 5, scenes.SIZE // 8, scenes.SIZE // 8)
    sampled = solver.solve(predict, comfy.sample.prepare_noise(empty, 0), levels, lambda *_: None, ())
    return miniature.experts["high"].model.process_latent_out(sampled)


def test_an_opening_of_all_high_noise_steps_is_the_run_without_loras_on_that_expert(miniature: evaluate.Miniature):
    setting = replace(NONE, steps=4, solver="euler", guidance=(OPENING_GUIDANCE, 4.0), loras=(("reversed", "high", 1.0),))
    assert relative_error(miniature.latents(setting, opening=2), miniature.latents(replace(setting, loras=()))) < 1e-4
    assert relative_error(miniature.latents(setting, opening=1), miniature.latents(setting)) > 0.1
