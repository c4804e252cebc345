"""Schedules, solvers and the plan of steps."""

import math
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.experts import Guidance, Schedule, is_high_noise
from engine.sampling.plan import StepPlan, plan_of
from engine.sampling.schedules import FLOW_SIGMA_MAX, shift_sigma, timestep
from engine.sampling.solvers import SOLVERS

MEAN, SPREAD = 0.7, 0.3


def plan(steps: int = 27, shift: float = 5.0, guidance: tuple[float, float] = (3.5, 4.0), acceleration: str = "none", boundary: float = 0.875,
         solver: str = "unipc") -> StepPlan:
    return plan_of(Schedule(solver, steps, shift), boundary, Guidance(*guidance), acceleration)


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
    by_expert = [step.high for step in plan(steps, shift).steps]
    assert by_expert == [True] * high + [False] * (steps - high)


def test_the_boundary_itself_belongs_to_the_high_expert() -> None:
    assert is_high_noise(875.0, 0.875)
    assert not is_high_noise(874.999, 0.875)
    assert is_high_noise(900.0, 0.9)
    assert is_high_noise(0.0, 0.0)
    assert not is_high_noise(999.0, 1.0)


def test_the_plan_reads_as_documented() -> None:
    assert plan().describe() == "27 steps: 12 high (t 999..878) + 15 low (t 861..161), guidance 3.5 / 4.0, 54 model calls"


def test_guidance_one_needs_one_call_per_step_and_an_idle_expert_is_not_mentioned() -> None:
    only_high = plan(boundary=0.0, guidance=(1.0, 4.0))
    assert only_high.describe() == "27 steps: 27 high (t 999..161), guidance 1.0 / 4.0, 27 model calls"
    assert not only_high.needs_negative()
    assert plan(guidance=(1.0, 4.0)).needs_negative()


@pytest.mark.parametrize(("wrong", "value"), [
    (lambda: Schedule("unipc", 0, 5.0), "steps is 0"), (lambda: Schedule("unipc", 27, 0.0), "shift is 0.0"),
    (lambda: Schedule("ddim", 27, 5.0), "solver is 'ddim'"), (lambda: Schedule("unipc", 27, 5.0, denoise=0.0), "denoise is 0.0"),
    (lambda: Guidance(-1.0, 4.0), "guidance_scale is -1.0"), (lambda: Guidance(3.5, 1e9), "guidance_scale_2 is 1000000000.0"),
    (lambda: plan(boundary=1.5), "boundary is 1.5"), (lambda: plan(boundary=math.nan), "boundary is nan"),
    (lambda: plan(acceleration="fast"), "acceleration is 'fast'")])
def test_settings_out_of_range_are_named(wrong: Callable[[], object], value: str) -> None:
    with pytest.raises(ValueError, match=re.escape(value)):
        wrong()


@given(steps=st.integers(1, 60), denoise=st.floats(0.05, 1.0), name=st.sampled_from(sorted(SOLVERS)))
def test_denoise_keeps_the_number_of_steps_and_cuts_the_noisy_end(steps: int, denoise: float, name: str) -> None:
    whole, part = Schedule(name, steps, 5.0).sigmas(), Schedule(name, steps, 5.0, denoise).sigmas()
    assert len(part) == steps + 1
    assert part[-1] == 0
    assert part[0] <= whole[0]


def gaussian_denoiser(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[x0 | x] for data drawn from a normal distribution: the exact denoiser of a known problem."""
    alpha = 1 - sigma
    variance = alpha**2 * SPREAD**2 + sigma**2
    return MEAN + alpha * SPREAD**2 / variance * (x - alpha * MEAN)


def trajectory(sigma: float) -> torch.Tensor:
    """Nine exact probability-flow trajectories of that problem at one noise level."""
    return (1 - sigma) * MEAN + math.hypot((1 - sigma) * SPREAD, sigma) * torch.linspace(-2, 2, 9, dtype=torch.float64)


def worst_error(name: str, sigmas: list[float]) -> float:
    end = SOLVERS[name].solve(gaussian_denoiser, trajectory(sigmas[0]), sigmas, lambda *_: None, ())
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
    result = SOLVERS[name].solve(lambda x, sigma: answer, trajectory(sigmas[0]), sigmas, lambda *_: None, ())
    torch.testing.assert_close(result, answer)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_network_is_called_once_per_step_and_every_step_is_reported(name: str) -> None:
    calls: list[float] = []
    reports: list[int] = []

    def predict(x: torch.Tensor, sigma: float) -> torch.Tensor:
        calls.append(sigma)
        return gaussian_denoiser(x, sigma)

    sigmas = SOLVERS[name].sigmas(9, 5.0).tolist()
    SOLVERS[name].solve(predict, torch.zeros(1), sigmas, lambda step, x0, x: reports.append(step), ())
    assert calls == sigmas[:-1]
    assert reports == list(range(9))


def test_a_plan_that_computes_all_keeps_what_was_said_of_it() -> None:
    forecasting = replace(plan(acceleration="regular"), remark="one half is missing")
    computed = forecasting.computed("another cache is on")
    assert forecasting.forecasts and not computed.forecasts
    assert computed.describe().endswith("; one half is missing; another cache is on")
