"""Which steps may reuse the residual of the step before: MagCache (Ma et al. 2025), one curve per expert.

The transformer adds a residual to its input. From step to step its magnitude changes by a ratio close to 1 that hardly depends on the prompt,
so a curve of ratios, measured once per model, tells in advance where reusing the last residual costs little. The plan needs no look at the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

MIN_STEPS = 10


@dataclass(frozen=True)
class CacheSettings:
    """MagCache's E, K and retention ratio: error allowed in one run of skips, skips in a row, share of an expert's steps always computed first."""

    max_error: float
    max_skips: int
    retention: float


@dataclass(frozen=True)
class MagnitudeCurve:
    """Residual magnitude ratios (conditional, unconditional) of one expert, at the timesteps of a calibration run.

    ratios[i] compares timesteps[i] with timesteps[i - 1]; ratios[0] is 1. Timesteps fall.
    """

    timesteps: tuple[float, ...]
    ratios: tuple[tuple[float, float], ...]

    def at(self, timesteps: Sequence[float]) -> np.ndarray:
        """Ratios (N, 2) between successive `timesteps`, however many or few; beyond the calibrated range the curve goes on with its last slope."""
        magnitude = np.cumsum(np.log(np.asarray(self.ratios)), axis=0)
        measured = -np.asarray(self.timesteps, dtype=float)
        asked = -np.asarray(timesteps, dtype=float)
        log_magnitude = np.stack([_interpolate(asked, measured, branch) for branch in magnitude.T], axis=-1)
        return np.exp(np.diff(log_magnitude, axis=0, prepend=log_magnitude[:1]))


def _interpolate(x: np.ndarray, measured: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation, and extrapolation along the last segment."""
    if len(measured) < 2:
        return np.zeros_like(x)
    slope = (values[-1] - values[-2]) / (measured[-1] - measured[-2])
    return np.where(x > measured[-1], values[-1] + slope * (x - measured[-1]), np.interp(x, measured, values))


def magnitude_ratio(residual: torch.Tensor, previous: torch.Tensor) -> float:
    """Mean over tokens of |residual| / |previous|, both (B, tokens, dim), as MagCache's calibration measures it."""
    return (residual.float().norm(dim=-1) / previous.float().norm(dim=-1)).mean().item()


def plan_skips(timesteps: Sequence[float], curve: MagnitudeCurve, settings: CacheSettings) -> tuple[bool, ...]:
    """True for each of one expert's steps that may reuse the last residual; both branches skip together or not at all."""
    always_computed = max(1, int(len(timesteps) * settings.retention))
    skips: list[bool] = []
    magnitude, error, in_a_row = np.ones(2), np.zeros(2), 0
    for step, ratio in enumerate(curve.at(timesteps)):
        magnitude = magnitude * ratio
        error = error + np.abs(1 - magnitude)
        skip = step >= always_computed and in_a_row < settings.max_skips and bool(error.max() < settings.max_error)
        skips.append(skip)
        in_a_row += 1
        if not skip:
            magnitude, error, in_a_row = np.ones(2), np.zeros(2), 0
    return tuple(skips)
