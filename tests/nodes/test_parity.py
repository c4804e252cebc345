"""The sampler equals the official one: timesteps exactly, final latents to 1e-4, on the same experts through ComfyUI's loader."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import oracles
from engine.sampling.schedules import timestep
from engine.sampling.solvers import SOLVERS
from sampling_runs import noise, relative_error

SCHEDULES = [(27, 5.0), (40, 12.0), (20, 8.0), (8, 5.0), (4, 5.0)]
GUIDANCE = [(3.5, 4.0), (1.0, 1.0), (1.0, 4.0), (4.0, 3.0)]
BOUNDARIES = [0.0, 0.875, 1.0]
TABLE: list[str] = []


@pytest.fixture(scope="module")
def official_experts(weights: tuple) -> tuple[torch.nn.Module, torch.nn.Module]:
    return oracles.official_expert(weights[0]), oracles.official_expert(weights[1])


@pytest.fixture(scope="module", autouse=True)
def parity_table(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print every measured error at the end, as the parity table of this run."""
    yield
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n\nrelative error of the final latent, float32\n" + "\n".join(TABLE))


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
@pytest.mark.parametrize(("steps", "shift"), SCHEDULES)
def test_timesteps_and_sigmas_are_the_official_schedulers(solver: str, steps: int, shift: float) -> None:
    scheduler = oracles.official_scheduler(solver, steps, shift)
    ours = SOLVERS[solver].sigmas(steps, shift)
    assert [timestep(sigma) for sigma in ours.tolist()[:-1]] == scheduler.timesteps.tolist()
    torch.testing.assert_close(ours, scheduler.sigmas, rtol=2e-7, atol=0)


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("guidance", GUIDANCE)
@pytest.mark.parametrize(("steps", "shift"), SCHEDULES)
def test_unipc_equals_the_official_code(sample: Callable[..., torch.Tensor], official_experts: tuple, prompts: tuple, steps: int, shift: float,
                                        guidance: tuple[float, float], boundary: float) -> None:
    compare(sample, official_experts, prompts, "unipc", steps, shift, guidance, boundary)


@pytest.mark.parametrize(("steps", "shift"), SCHEDULES)
def test_dpmpp_equals_the_official_code(sample: Callable[..., torch.Tensor], official_experts: tuple, prompts: tuple, steps: int,
                                        shift: float) -> None:
    compare(sample, official_experts, prompts, "dpm++", steps, shift, (3.5, 4.0), 0.875)


def compare(sample: Callable[..., torch.Tensor], experts: tuple, prompts: tuple, *settings: Any) -> None:
    error = relative_error(sample(*settings), oracles.official_sample(experts, noise(), *prompts, *settings))
    solver, steps, shift, guidance, boundary = settings
    TABLE.append(f"official {solver:<6} {steps:>3} steps, shift {shift:<4}, guidance {guidance}, boundary {boundary:<5}: {error:.1e}")
    assert error < 1e-4


def test_the_comparison_sees_a_switch_one_step_early(sample: Callable[..., torch.Tensor], official_experts: tuple, prompts: tuple) -> None:
    theirs = oracles.official_sample(official_experts, noise(), *prompts, "unipc", 27, 5.0, (3.5, 4.0), 0.875)
    assert relative_error(sample("unipc", 27, 5.0, (3.5, 4.0), 0.88), theirs) > 1e-3


@pytest.mark.parametrize("guidance", [(3.5, 4.0), (1.0, 1.0), (4.0, 3.0)])  # (1, 4): WanPipeline drops guidance for both experts
@pytest.mark.parametrize(("steps", "shift"), SCHEDULES)
def test_unipc_equals_diffusers_wan_pipeline(sample: Callable[..., torch.Tensor], weights: tuple, prompts: tuple, steps: int, shift: float,
                                             guidance: tuple[float, float]) -> None:
    pipeline = oracles.diffusers_pipeline(*weights, shift=shift, boundary=0.875)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(prompt_embeds=prompts[0][None], negative_prompt_embeds=prompts[1][None], latents=noise(), num_inference_steps=steps,
                      guidance_scale=guidance[0], guidance_scale_2=guidance[1], height=32, width=48, num_frames=9, output_type="latent").frames
    error = relative_error(sample("unipc", steps, shift, guidance, 0.875), theirs)
    TABLE.append(f"diffusers unipc {steps:>3} steps, shift {shift:<4}, guidance {guidance}, boundary 0.875: {error:.1e}")
    assert error < 1e-4
