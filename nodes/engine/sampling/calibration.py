"""How well each forecast would have met the velocities of a run that computed every step, and the settings that follow from it."""

from dataclasses import dataclass

import torch

from .forecast import VelocityForecast

MOST_IN_A_ROW = 4
HALF = 0.5


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
