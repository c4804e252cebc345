"""Schedules, solvers and the plan of steps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.experts import SamplingSettings, StepPlan, is_high_noise
from engine.sampling.schedules import FLOW_SIGMA_MAX, shift_sigma, timestep
from engine.sampling.solvers import SOLVERS

MEAN, SPREAD = 0.7, 0.3


def settings(**changes: object) -> SamplingSettings:
    defaults = {"steps": 27, "guidance_high": 3.5, "guidance_low": 4.0, "shift": 5.0, "solver": "unipc",
                "acceleration": "none", "boundary": 0.875}
    return SamplingSettings(**{**defaults, **changes})


@pytest.mark.parametrize("name", SOLVERS)
@given(steps=st.integers(1, 120), shift=st.floats(0.1, 12))
def test_schedules_fall_from_noise_to_zero(name: str, steps: int, shift: float) -> None:
    sigmas = SOLVERS[name].sigmas(steps, shift)
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == torch.float32
    assert sigmas[0] >= 0.98
    assert sigmas[-1] == 0
    assert (sigmas.diff() < 0).all()


@given(steps=st.integers(1, 120), shift=st.floats(0.5, 12))
def test_float32_sigmas_keep_the_official_integer_timesteps(steps: int, shift: float) -> None:
    official = (shift_sigma(np.linspace(FLOW_SIGMA_MAX, 0, steps + 1)[:-1], shift) * 1000).astype(np.int64)
    assert [timestep(sigma) for sigma in SOLVERS["unipc"].sigmas(steps, shift).tolist()[:-1]] == official.tolist()


def test_the_hosted_schedule_is_the_documented_one() -> None:
    timesteps = [timestep(sigma) for sigma in SOLVERS["unipc"].sigmas(27, 5.0).tolist()[:-1]]
    assert timesteps[:3] == [999, 992, 984]
    assert timesteps[11:13] == [878, 861]
    assert timesteps[-1] == 161


@pytest.mark.parametrize(("steps", "shift", "high"), [(40, 12, 26), (40, 5, 17), (27, 5, 12), (20, 8, 11), (20, 5, 9), (8, 5, 4), (4, 5, 2)])
def test_high_noise_steps_follow_the_official_rule(steps: int, shift: float, high: int) -> None:
    plan = StepPlan.of_settings(settings(steps=steps, shift=shift))
    assert len(plan.high) == high
    assert len(plan.high) + len(plan.low) == steps


def test_the_boundary_itself_belongs_to_the_high_expert() -> None:
    assert is_high_noise(875.0, 0.875)
    assert not is_high_noise(874.999, 0.875)
    assert is_high_noise(900.0, 0.9)
    assert is_high_noise(0.0, 0.0)
    assert not is_high_noise(999.0, 1.0)


def test_the_plan_reads_as_documented() -> None:
    assert StepPlan.of_settings(settings()).describe() == \
        "27 steps: 12 high (t 999..878) + 15 low (t 861..161), guidance 3.5 / 4.0, 54 model calls"


def test_guidance_one_needs_one_call_per_step_and_an_idle_expert_is_not_mentioned() -> None:
    plan = StepPlan.of_settings(settings(boundary=0.0, guidance_high=1.0))
    assert plan.describe() == "27 steps: 27 high (t 999..161), guidance 1.0 / 4.0, 27 model calls"


@pytest.mark.parametrize(("name", "value"), [("steps", 0), ("shift", 0.0), ("boundary", 1.5), ("boundary", -0.1), ("boundary", math.nan),
                                             ("guidance_high", -1.0), ("guidance_low", 1e9), ("solver", "ddim"), ("acceleration", "fast")])
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"is '?{value}'?"):
        settings(**{name: value})


def gaussian_denoiser(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x0 | x] for data drawn from a normal distribution: the exact denoiser of a known problem."""
    alpha = 1 - sigma
    variance = alpha**2 * SPREAD**2 + sigma**2
    return MEAN + alpha * SPREAD**2 / variance * (x - alpha * MEAN)


def trajectory(sigma: float) -> torch.Tensor:
    """Nine exact probability-flow trajectories of that problem at one noise level."""
    return (1 - sigma) * MEAN + math.hypot((1 - sigma) * SPREAD, sigma) * torch.linspace(-2, 2, 9, dtype=torch.float64)


def worst_error(name: str, sigmas: list[float]) -> float:
    end = SOLVERS[name].solve(gaussian_denoiser, trajectory(sigmas[0]), sigmas, lambda *_: None)
    return (end - trajectory(sigmas[-1])).abs().max().item()


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("dpm++", 2), ("unipc", 2)])
def test_solvers_converge_with_their_order(name: str, order: int) -> None:
    coarse, fine = (worst_error(name, np.linspace(0.9, 0.1, steps + 1).tolist()) for steps in (80, 160))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


def test_higher_order_is_closer_at_the_hosted_settings() -> None:
    error = {name: worst_error(name, SOLVERS[name].sigmas(27, 5.0).tolist()) for name in SOLVERS}
    assert error["unipc"] < error["dpm++"] < error["euler"]


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 27])
def test_a_network_that_knows_the_answer_is_believed(name: str, steps: int) -> None:
    answer = torch.linspace(-1, 1, 9, dtype=torch.float64)
    sigmas = SOLVERS[name].sigmas(steps, 5.0).tolist()
    result = SOLVERS[name].solve(lambda x, sigma: answer, trajectory(sigmas[0]), sigmas, lambda *_: None)
    torch.testing.assert_close(result, answer)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_network_is_called_once_per_step_and_every_step_is_reported(name: str) -> None:
    calls: list[float] = []
    reports: list[int] = []

    def predict(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        return gaussian_denoiser(x, sigma)

    sigmas = SOLVERS[name].sigmas(9, 5.0).tolist()
    SOLVERS[name].solve(predict, torch.zeros(1), sigmas, lambda step, x0, x: reports.append(step))
    assert calls == sigmas[:-1]
    assert reports == list(range(9))
