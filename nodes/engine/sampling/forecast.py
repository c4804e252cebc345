"""Steps without a call of the network: the guided velocity of the last computed step is carried on, along part of its trend.

Along a flow the velocity v = (x - x0) / t changes little from step to step, so that it can be held over a few of them, or follow the line through
the last two computed ones. Which steps are computed is planned from the timesteps alone, before the run. How the settings came about, and what was
tried beside them: docs/decisions/velocity_forecast.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from ..choices import check_range

ACCELERATIONS = ("none", "regular", "high")
MIN_STEPS = 10  # of a run: below it every step is computed
MODERATE = 4.25  # guidance up to which the settings of the defaults hold
MIN_FIRST, MAX_STEPS, MAX_IN_A_ROW = 2, 1000, 8


@dataclass(frozen=True)
class ForecastSettings:
    """How the steps of one expert are forecast.

    first: steps that are computed before any is forecast, 2 or more. in_a_row: most forecasts between two computed steps; 0 for none.
    nearest: a step is forecast only while its timestep is at least this share, 0..1, of the last computed one's: towards 0 the velocity turns fast.
    trend: share, 0..1, of the slope through the last two computed velocities that a forecast follows; 0 holds the velocity.
    """

    first: int
    in_a_row: int
    nearest: float
    trend: float

    def __post_init__(self) -> None:
        check_range("first", self.first, MIN_FIRST, MAX_STEPS)
        check_range("in_a_row", self.in_a_row, 0, MAX_IN_A_ROW)
        check_range("nearest", self.nearest, 0.0, 1.0)
        check_range("trend", self.trend, 0.0, 1.0)


Measured = Mapping[bool, ForecastSettings | None]  # settings of one's own for the high-noise expert (True) and the low-noise one (False)
NOTHING_MEASURED: Measured = {}


def plan_forecasts(timesteps: Sequence[float], settings: ForecastSettings) -> tuple[bool, ...]:
    """True for each of one expert's steps, whose timesteps fall, that is forecast."""
    forecasts: list[bool] = []
    computed, in_a_row = 0.0, 0
    for step, t in enumerate(timesteps):
        forecasts.append(step >= settings.first and in_a_row < settings.in_a_row and t >= settings.nearest * computed)
        computed, in_a_row = (computed, in_a_row + 1) if forecasts[-1] else (t, 0)
    return tuple(forecasts)


class VelocityForecast:
    """The velocities of the last two steps that one expert computed, and what they foretell."""

    def __init__(self) -> None:
        self.computed: list[tuple[float, torch.Tensor]] = []

    def clear(self) -> None:
        self.computed = []

    def note(self, t: float, velocity: torch.Tensor) -> None:
        self.computed = [*self.computed[-1:], (t, velocity)]

    def at(self, t: float, trend: float) -> torch.Tensor:
        """v_i + trend * min(1, (t - t_i) / (t_i - t_k)) * (v_i - v_k), with i the last computed step and k the one before."""
        (before, earlier), (last, velocity) = self.computed
        return torch.lerp(velocity, earlier, -trend * min(1.0, (t - last) / (last - before))) if trend else velocity


def settings_at(acceleration: str, solver: str, steps: int, guidance: float, high: bool,
                measured: ForecastSettings | None = None) -> ForecastSettings:
    """The settings of `acceleration` for an expert that takes so many steps with this guidance; `measured`: in place of those of `regular`.

    Guidance multiplies what a forecast gets wrong, and the low-noise expert answers it with a swing: with more of it forecasts are fewer and flatter.
    So with DPM-Solver++, which extrapolates from what it is told.
    """
    settings = measured or (_high_noise if high else _low_noise)(solver, steps, guidance)
    if high or acceleration == "regular":
        return settings
    return replace(settings, in_a_row=min(MAX_IN_A_ROW, settings.in_a_row + 1), nearest=0.9 * settings.nearest)


def _high_noise(solver: str, steps: int, guidance: float) -> ForecastSettings:
    in_a_row = steps // 4 if guidance <= MODERATE and solver != "dpm++" else (steps + 2) // 5
    return ForecastSettings(first=2, in_a_row=min(3, in_a_row), nearest=0.0, trend=0.6)


def _low_noise(solver: str, steps: int, guidance: float) -> ForecastSettings:
    in_a_row = int(steps >= MIN_STEPS)
    if guidance > MODERATE:
        return ForecastSettings(4, in_a_row, nearest=0.9, trend=0.0)
    return ForecastSettings(4, in_a_row, nearest=0.91, trend=0.4) if solver == "dpm++" else ForecastSettings(3, in_a_row, nearest=0.86, trend=0.4)
