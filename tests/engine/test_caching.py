"""Step skipping: planned from the published curves, per expert, and never where it does not belong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sampling.caching import MIN_STEPS, CacheSettings, MagnitudeCurve, plan_skips
from engine.sampling.experts import Guidance, Schedule, StepPlan, plan_steps
from engine.sampling.magcache_tables import PUBLISHED_SETTINGS, T2V_A14B_HIGH, T2V_A14B_LOW
from engine.sampling.solvers import SOLVERS


def plan(steps: int, shift: float, boundary: float = 0.875) -> StepPlan:
    sigmas = Schedule("unipc", steps, shift).sigmas().tolist()[:-1]
    return plan_steps(sigmas, [SOLVERS["unipc"].timestep(sigma) for sigma in sigmas], boundary, Guidance(3.5, 4.0), "regular")


def kept(made: StepPlan) -> float:
    return made.model_calls() / made.model_calls(with_skipped=True)


@pytest.mark.parametrize(("steps", "shift", "share"), [(27, 5.0, 0.667), (40, 12.0, 0.65)])
def test_published_settings_keep_the_share_worked_out_from_the_published_curves(steps: int, shift: float, share: float) -> None:
    assert kept(plan(steps, shift)) == pytest.approx(share, abs=0.001)


@given(steps=st.integers(MIN_STEPS, 100), shift=st.floats(1.0, 12.0), boundary=st.floats(0.0, 1.0))
def test_each_expert_warms_up_and_never_skips_more_than_allowed_in_a_row(steps: int, shift: float, boundary: float) -> None:
    made = plan(steps, shift, boundary=boundary)
    for high in (True, False):
        skipped = [step.skipped for step in made.steps if step.high is high]
        if skipped:
            assert not any(skipped[: max(1, int(len(skipped) * PUBLISHED_SETTINGS.retention))])
            assert "xxx" not in "".join(".x"[skip] for skip in skipped)


@pytest.mark.parametrize("steps", [1, 4, MIN_STEPS - 1])
def test_few_steps_are_all_computed_and_the_plan_says_why(steps: int) -> None:
    made = plan(steps, 5.0)
    assert not any(step.skipped for step in made.steps)
    assert f"acceleration off: below {MIN_STEPS} steps" in made.describe()


def test_the_report_counts_what_was_saved() -> None:
    assert plan(27, 5.0).describe() == ("27 steps: 12 high (t 999..878) + 15 low (t 861..161), guidance 3.5 / 4.0, "
                                        "36 model calls (9 steps skipped, 18 calls saved)")


def test_at_the_calibrated_timesteps_the_curve_is_the_table() -> None:
    for curve in (T2V_A14B_HIGH, T2V_A14B_LOW):
        np.testing.assert_allclose(curve.at(curve.timesteps), curve.ratios, rtol=1e-12)


@pytest.mark.parametrize("curve", [T2V_A14B_HIGH, T2V_A14B_LOW])
def test_half_the_steps_change_twice_as_much(curve: MagnitudeCurve) -> None:
    every_other = curve.at(curve.timesteps[::2])
    np.testing.assert_allclose(every_other[1:], np.asarray(curve.ratios)[1:-1:2][: len(every_other) - 1] * np.asarray(curve.ratios)[2::2], rtol=1e-12)


def test_below_the_calibrated_range_the_curve_keeps_falling() -> None:
    low = T2V_A14B_LOW.timesteps[-1]
    near, far = T2V_A14B_LOW.at([low, low - 50])[1], T2V_A14B_LOW.at([low, low - 100])[1]
    np.testing.assert_allclose(far, near**2, rtol=1e-12)
    assert (near < 1).all()


def test_a_curve_that_never_changes_skips_as_often_as_allowed() -> None:
    flat = MagnitudeCurve((1000.0, 500.0, 0.0), ((1.0, 1.0),) * 3)
    skips = plan_skips(list(range(1000, 0, -100)), flat, CacheSettings(max_error=0.06, max_skips=3, retention=0.2))
    assert "".join(".x"[skip] for skip in skips) == "..xxx.xxx."


def test_no_error_allowed_means_no_skips_and_no_steps_no_plan() -> None:
    assert not any(plan_skips([900.0, 890.0, 880.0], T2V_A14B_HIGH, CacheSettings(0.0, 2, 0.0)))
    assert plan_skips([], T2V_A14B_HIGH, PUBLISHED_SETTINGS) == ()
