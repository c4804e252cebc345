"""Forecasts of the velocity: exact where they claim to be, planned per expert, and never where they do not belong."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.sampling.calibration import ForecastErrors
from engine.sampling.experts import Guidance, Schedule
from engine.sampling.forecast import MIN_STEPS, ForecastSettings, VelocityForecast, plan_forecasts
from engine.sampling.plan import StepPlan, plan_of
from engine.sampling.solvers import SOLVERS, Predict

GUIDANCE = Guidance(3.5, 4.0)


def plan(steps: int = 27, shift: float = 5.0, boundary: float = 0.875, guidance: Guidance = GUIDANCE, acceleration: str = "regular",
         solver: str = "unipc") -> StepPlan:
    return plan_of(Schedule(solver, steps, shift), boundary, guidance, acceleration)


def share(made: StepPlan) -> float:
    return made.model_calls() / made.model_calls(all_computed=True)


def linear(t: float) -> torch.Tensor:
    return torch.tensor([1.0, -2.0]) + t * torch.tensor([3.0, 0.5])


# --- the forecast ---------------------------------------------------------------------------------------------------------------------------------


@given(times=st.lists(st.floats(0.01, 1.0), min_size=3, max_size=3, unique=True))
def test_along_the_whole_trend_a_velocity_that_is_linear_in_time_is_exact(times: list[float]) -> None:
    first, last, t = sorted(times, reverse=True)
    assume(first - last >= max(1e-3, last - t))  # no further ahead than the two computed steps lie apart
    forecast = VelocityForecast()
    forecast.note(first, linear(first))
    forecast.note(last, linear(last))
    torch.testing.assert_close(forecast.at(t, trend=1.0), linear(t), rtol=1e-4, atol=1e-4)


def test_a_forecast_holds_follows_half_and_goes_no_further_than_one_step_of_the_trend() -> None:
    forecast = VelocityForecast()
    for t in (1.0, 0.9, 0.8):
        forecast.note(t, linear(t))
    assert torch.equal(forecast.at(0.7, 0.0), linear(0.8))
    torch.testing.assert_close(forecast.at(0.7, 0.5), linear(0.75))
    torch.testing.assert_close(forecast.at(0.4, 0.5), linear(0.75))
    assert len(forecast.computed) == 2


# --- the solvers ----------------------------------------------------------------------------------------------------------------------------------


def flow(solver: str, steps: int, forecasts: frozenset[int], trend: float, velocity: object = linear) -> torch.Tensor:
    """A whole run in which the steps of `forecasts` are not evaluated."""
    forecast = VelocityForecast()
    calls = iter(range(steps))

    def predict(x: torch.Tensor, sigma: float) -> torch.Tensor:
        if next(calls) in forecasts:
            return x - sigma * forecast.at(sigma, trend)
        forecast.note(sigma, velocity(sigma))  # type: ignore[operator]
        return x - sigma * forecast.computed[-1][1]

    start = torch.zeros(2, dtype=torch.float64)
    made: Predict = predict
    return SOLVERS[solver].solve(made, start, Schedule(solver, steps, 3.0).sigmas().tolist(), lambda *_: None, forecasts)


@pytest.mark.parametrize("solver", SOLVERS)
def test_nothing_changes_where_the_velocity_is_constant(solver: str) -> None:
    constant = lambda t: torch.tensor([1.0, -2.0], dtype=torch.float64)  # noqa: E731
    every, some = (flow(solver, 12, frozenset(skipped), 0.5, constant) for skipped in ((), (3, 4, 7)))
    torch.testing.assert_close(some, every, rtol=1e-12, atol=1e-12)


def test_euler_and_a_linear_velocity_need_no_evaluation_between() -> None:
    every, some = (flow("euler", 12, frozenset(skipped), 1.0) for skipped in ((), (4, 8)))
    assert (some - every).abs().max() < (flow("euler", 12, frozenset((4, 8)), 0.0) - every).abs().max() / 5


@pytest.mark.parametrize("solver", SOLVERS)
def test_forecasts_of_no_step_change_no_bit(solver: str) -> None:
    assert torch.equal(flow(solver, 12, frozenset(), 0.5), flow(solver, 12, frozenset(), 0.0))


def test_a_forecast_corrects_nothing_in_unipc() -> None:
    """Whatever the forecast says, the point it is made at stays: what follows starts from there."""
    def points(forecasts: tuple[int, ...]) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []
        SOLVERS["unipc"].solve(lambda x, sigma: torch.sin(3 * x) * sigma, torch.ones(2, dtype=torch.float64),
                               Schedule("unipc", 12, 3.0).sigmas().tolist(), lambda step, x0, x: seen.append(x), forecasts)
        return seen

    with_forecast, without = points((5,)), points(())
    assert all(torch.equal(*pair) for pair in zip(with_forecast[:6], without[:6], strict=True))
    assert not torch.equal(with_forecast[6], without[6])


# --- the plan -------------------------------------------------------------------------------------------------------------------------------------


@given(steps=st.integers(MIN_STEPS, 100), shift=st.floats(1.0, 12.0), boundary=st.floats(0.0, 1.0), high=st.floats(1.0, 10.0),
       low=st.floats(1.0, 10.0), acceleration=st.sampled_from(["regular", "high"]), solver=st.sampled_from(list(SOLVERS)))
def test_no_expert_forecasts_among_its_first_two_steps_and_no_run_its_last(steps: int, shift: float, boundary: float, high: float, low: float,
                                                                          acceleration: str, solver: str) -> None:
    made = plan(steps, shift, boundary, Guidance(high, low), acceleration, solver)
    assert len(made.steps) == steps
    assert made.steps[-1].trend is None
    for expert in (True, False):
        own = [step.trend is not None for step in made.steps if step.high is expert]
        assert not any(own[:2])


@pytest.mark.parametrize(("acceleration", "most"), [("regular", 0.55), ("high", 0.46)])
def test_at_the_defaults_about_half_of_the_calls_remain(acceleration: str, most: float) -> None:
    assert share(plan(acceleration=acceleration)) <= most


@pytest.mark.parametrize("steps", [1, 4, MIN_STEPS - 1])
def test_few_steps_are_all_computed_and_the_plan_says_why(steps: int) -> None:
    assert not plan(steps).forecasts
    assert f"acceleration off: below {MIN_STEPS} steps" in plan(steps).describe()


def test_the_report_counts_what_was_saved() -> None:
    assert plan().describe() == ("27 steps: 12 high (t 999..878) + 15 low (t 861..161), guidance 3.5 / 4.0, "
                                 "28 model calls (13 steps forecast, 26 calls saved)")


@given(first=st.integers(2, 9), in_a_row=st.integers(0, 8), nearest=st.floats(0.0, 1.0), count=st.integers(0, 60))
def test_settings_are_kept_to(first: int, in_a_row: int, nearest: float, count: int) -> None:
    timesteps = [1000 - 15 * step for step in range(count)]
    forecasts = plan_forecasts(timesteps, ForecastSettings(first, in_a_row, nearest, 0.5))
    assert not any(forecasts[:first])
    assert "x" * (in_a_row + 1) not in "".join(".x"[forecast] for forecast in forecasts)
    computed = 0
    for step, forecast in enumerate(forecasts):
        assert not forecast or timesteps[step] >= nearest * timesteps[computed]
        computed = computed if forecast else step


@pytest.mark.parametrize(("name", "value", "limit"), [("first", 1, "between 2"), ("in_a_row", 9, "between 0 and 8"), ("nearest", 1.5, "1.0"),
                                                      ("trend", -0.1, "0.0")])
def test_settings_out_of_range_are_refused_by_name(name: str, value: float, limit: str) -> None:
    good: dict[str, float] = {"first": 3, "in_a_row": 1, "nearest": 0.8, "trend": 0.5}
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be.*{limit}"):
        ForecastSettings(**{**good, name: value})  # type: ignore[arg-type]


# --- calibration ----------------------------------------------------------------------------------------------------------------------------------


def test_the_errors_of_a_linear_velocity_are_those_of_the_line() -> None:
    errors = ForecastErrors()
    for step in range(8):
        errors.note(1000 - 50 * step, linear(1 - 0.05 * step))
    for error in errors.errors:
        assert math.isclose(error.best_trend, error.ahead, rel_tol=1e-4)
        assert error.half < error.held
    assert {error.ahead for error in errors.errors} == {1, 2, 3, 4}
