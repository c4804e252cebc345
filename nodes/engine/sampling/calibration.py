"""How well each forecast would have met the velocities of a run that computed every step, and the settings that follow from it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch

from .forecast import ForecastSettings, VelocityForecast

MOST_IN_A_ROW = 4
HALF = 0.5
ALLOWED = {True: 0.13, False: 0.055}  # error along half the trend, by expert (high-noise: True): what the pack's settings allow on the miniature


@dataclass(frozen=True)
class StepError:
    """Errors |v_j - forecast| / |v_j| of one expert's step at timestep t, `ahead` steps after the last computed one: held, and along half the
    trend. best_trend: the share of the slope that would have come nearest. ratio: t over the timestep of the last computed step."""

    t: float
    ahead: int
    ratio: float
    held: float
    half: float
    best_trend: float


class ForecastErrors:
    """Takes one expert's velocities in order and keeps no more of them than forecasts reach back."""

    def __init__(self) -> None:
        self.velocities: list[tuple[float, torch.Tensor]] = []
        self.errors: list[StepError] = []

    def note(self, t: float, velocity: torch.Tensor) -> None:
        """The next step's timestep and velocity (B, C, T, H, W)."""
        for ahead in range(1, min(MOST_IN_A_ROW, len(self.velocities) - 1) + 1):
            self.errors.append(_error(self.velocities[-ahead - 1], self.velocities[-ahead], (t, velocity), ahead))
        self.velocities = [*self.velocities[-MOST_IN_A_ROW:], (t, velocity)]


def _error(before: tuple[float, torch.Tensor], last: tuple[float, torch.Tensor], here: tuple[float, torch.Tensor], ahead: int) -> StepError:
    forecast = VelocityForecast()
    forecast.note(*before)
    forecast.note(*last)
    t, velocity = here
    held, along = forecast.at(t, 0.0), forecast.at(t, 1.0)
    trend, missing = along - held, velocity - held
    best = float((trend * missing).sum() / trend.square().sum())
    return StepError(t, ahead, t / last[0], _relative(held, velocity), _relative(forecast.at(t, HALF), velocity), best)


def _relative(forecast: torch.Tensor, velocity: torch.Tensor) -> float:
    return float((forecast - velocity).norm() / velocity.norm())


def proposed(errors: Sequence[StepError], usual: ForecastSettings, allowed: float) -> ForecastSettings:
    """The `usual` settings with as many forecasts, as near to 0 and along as much of the trend as keep their error below `allowed`, by the median."""
    one_ahead = [error for error in errors if error.ahead == 1][usual.first - 2 :]
    good = [error for error in one_ahead if error.half <= allowed]
    if not good:
        return replace(usual, in_a_row=0)
    nearest = 0.0 if len(good) == len(one_ahead) else int(100 * min(error.ratio for error in good)) / 100
    by_ahead = [[error.half for error in errors if error.ahead == ahead and error.ratio >= nearest] for ahead in range(1, MOST_IN_A_ROW + 1)]
    in_a_row = max((ahead for ahead, halves in enumerate(by_ahead, 1) if halves and median(halves) <= allowed), default=0)
    trend = usual.trend * min(1.0, max(0.0, median(error.best_trend for error in good)))
    return replace(usual, in_a_row=in_a_row, nearest=nearest, trend=round(trend, 2))
