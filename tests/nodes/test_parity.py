"""The sampler equals the official one, in float64, on the same experts through ComfyUI's loader: timesteps exactly, final latents to 1e-7."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import oracles
import precision
from engine.sampling.schedules import timestep
from engine.sampling.solvers import SOLVERS
from sampling_runs import Sample, noise, relative_error

SCHEDULES = [(27, 5.0), (40, 12.0), (20, 8.0), (8, 5.0), (4, 5.0)]
GUIDANCE = [(3.5, 4.0), (1.0, 1.0), (1.0, 4.0), (4.0, 3.0)]
BOUNDARIES = [0.875, 0.0, 1.0]
RUNS = [(*schedule, guidance, BOUNDARIES[(i + j) % 3]) for i, schedule in enumerate(SCHEDULES) for j, guidance in enumerate(GUIDANCE)]
LIMIT = 1e-7
TABLE: list[str] = []


def test_the_runs_hold_every_pair_of_settings() -> None:
    factors = (SCHEDULES, GUIDANCE, BOUNDARIES)
    runs = [(run[:2], *run[2:]) for run in RUNS]
    for one, other in itertools.combinations(range(3), 2):
        assert {(run[one], run[other]) for run in runs} == set(itertools.product(factors[one], factors[other]))


@pytest.fixture(scope="module")
def official_experts(weights: tuple) -> tuple[torch.nn.Module, torch.nn.Module]:
    with precision.float64():
        return oracles.official_expert(weights[0]).double(), oracles.official_expert(weights[1]).double()


@pytest.fixture(scope="module")
def diffusers_experts(weights: tuple) -> tuple[torch.nn.Module, torch.nn.Module]:
    with precision.float64():
        return oracles.diffusers_expert(weights[0]).double(), oracles.diffusers_expert(weights[1]).double()


@pytest.fixture(scope="module", autouse=True)
def parity_table(request: pytest.FixtureRequest) -> Iterator[None]:
    """Print every measured error at the end, as the parity table of this run."""
    yield
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print("\n\nrelative error of the final latent, float64\n" + "\n".join(TABLE))


@pytest.mark.parametrize("solver", ["unipc", "dpm++"])
@pytest.mark.parametrize(("steps", "shift"), SCHEDULES)
def test_timesteps_and_sigmas_are_the_official_schedulers(solver: str, steps: int, shift: float) -> None:
    scheduler = oracles.official_scheduler(solver, steps, shift)
    ours = SOLVERS[solver].sigmas(steps, shift)
    assert [timestep(sigma) for sigma in ours.tolist()[:-1]] == scheduler.timesteps.tolist()
    torch.testing.assert_close(ours, scheduler.sigmas, rtol=2e-7, atol=0)


@pytest.mark.parametrize(("steps", "shift", "guidance", "boundary"), RUNS)
def test_unipc_equals_the_official_code(exact_sample: Sample, official_experts: tuple, steps: int, shift: float, guidance: tuple[float, float],
                                        boundary: float) -> None:
    compare_with_official(exact_sample, official_experts, "unipc", steps, shift, guidance, boundary)


@pytest.mark.parametrize(("steps", "shift"), SCHEDULES)
def test_dpmpp_equals_the_official_code(exact_sample: Sample, official_experts: tuple, steps: int, shift: float) -> None:
    compare_with_official(exact_sample, official_experts, "dpm++", steps, shift, (3.5, 4.0), 0.875)


def compare_with_official(exact_sample: Sample, official_experts: tuple, *settings: Any) -> None:
    compare("official", exact_sample(*settings), oracles.official_sample(official_experts, noise(), *exact_sample.prompts, *settings), *settings)


def compare(who: str, ours: torch.Tensor, theirs: torch.Tensor, *settings: Any) -> None:
    assert ours.dtype == theirs.dtype == torch.float64
    error = relative_error(ours, theirs)
    solver, steps, shift, guidance, boundary = settings
    TABLE.append(f"{who:<9} {solver:<6} {steps:>3} steps, shift {shift:<4}, guidance {guidance}, boundary {boundary:<5}: {error:.1e}")
    assert error < LIMIT


def test_the_comparison_sees_a_switch_one_step_early(exact_sample: Sample, official_experts: tuple) -> None:
    theirs = oracles.official_sample(official_experts, noise(), *exact_sample.prompts, "unipc", 27, 5.0, (3.5, 4.0), 0.875)
    assert relative_error(exact_sample("unipc", 27, 5.0, (3.5, 4.0), 0.88), theirs) > 1e-3


@pytest.mark.parametrize(("steps", "shift", "guidance"), [
    (27, 5.0, (3.5, 4.0)), (40, 12.0, (4.0, 3.0)), (20, 8.0, (1.0, 1.0)), (8, 5.0, (3.5, 4.0)), (4, 5.0, (1.0, 1.0))])
def test_unipc_equals_diffusers_wan_pipeline(exact_sample: Sample, diffusers_experts: tuple[torch.nn.Module, torch.nn.Module], steps: int,
                                             shift: float, guidance: tuple[float, float]) -> None:
    """Guidance (1, 4) is not among them: WanPipeline drops guidance for both experts then."""
    pipeline = oracles.diffusers_pipeline(*diffusers_experts, shift=shift, boundary=0.875)
    pipeline.set_progress_bar_config(disable=True)
    positive, negative = exact_sample.prompts
    theirs = pipeline(prompt_embeds=positive[None], negative_prompt_embeds=negative[None], latents=noise(), num_inference_steps=steps,
                      guidance_scale=guidance[0], guidance_scale_2=guidance[1], height=32, width=48, num_frames=9, output_type="latent").frames
    compare("diffusers", exact_sample("unipc", steps, shift, guidance, 0.875), theirs, "unipc", steps, shift, guidance, 0.875)
