"""MagCache (Ma et al. 2025) with its published curves and settings, a curve per expert: a peer to measure against, and what `regular` was at first.

The transformer adds a residual to its input. From step to step its magnitude changes by a ratio close to 1 that hardly depends on the prompt,
so a curve of ratios, measured once per model, tells in advance where reusing the last residual costs little. The plan needs no look at the data.
Curves: Zehong-Ma/MagCache, MagCache4Wan2.2/magcache_generate.py, measured with Wan 2.2 T2V A14B at 40 UniPC steps, shift 12, of which the first 26
belong to the high-noise expert. Across the switch a ratio means nothing, so each expert's curve starts at 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from engine.sampling.experts import Schedule, is_high_noise
from engine.sampling.schedules import timestep, unipc_sigmas
from engine.sampling.solvers import solver_named

BLOCK = "double_block"  # what comfy/ldm/wan/model.py calls its blocks


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


PUBLISHED_SETTINGS = CacheSettings(max_error=0.06, max_skips=2, retention=0.4)

_TIMESTEPS = [float(timestep(sigma)) for sigma in unipc_sigmas(40, 12.0).tolist()[:-1]]

_HIGH = (
    (1.0, 1.0), (1.00124, 1.00155), (0.99822, 0.99851), (0.99696, 0.99687), (0.99703, 0.99732), (0.9966, 0.99679),
    (0.99602, 0.99658), (0.99578, 0.99664), (0.99484, 0.9949), (0.99633, 0.996), (0.99659, 0.99683), (0.99534, 0.99549),
    (0.99584, 0.99577), (0.99681, 0.99694), (0.99563, 0.99554), (0.9944, 0.99473), (0.99594, 0.9964), (0.99466, 0.99461),
    (0.99453, 0.99481), (0.99389, 0.99365), (0.99391, 0.99406), (0.99354, 0.99361), (0.99283, 0.99278), (0.99268, 0.99263),
    (0.99057, 0.99091), (0.99125, 0.99126),
)
_LOW = (
    (1.0, 1.0), (0.98808, 0.98852), (0.98765, 0.98736), (0.9851, 0.98535), (0.98311, 0.98339), (0.9805, 0.9806),
    (0.97776, 0.97771), (0.97278, 0.97286), (0.96731, 0.96728), (0.95857, 0.95855), (0.94385, 0.94385), (0.92118, 0.921),
    (0.88108, 0.88076), (0.80263, 0.80181),
)

T2V_A14B_HIGH = MagnitudeCurve(tuple(_TIMESTEPS[:26]), _HIGH)
T2V_A14B_LOW = MagnitudeCurve(tuple(_TIMESTEPS[26:]), _LOW)


def planned(schedule: Schedule, boundary: float) -> list[float]:
    """The timesteps of a run that MagCache skips."""
    timesteps = [solver_named(schedule.solver).timestep(sigma) for sigma in schedule.sigmas().tolist()[:-1]]
    high = [t for t in timesteps if is_high_noise(t, boundary)]
    skips = plan_skips(high, T2V_A14B_HIGH, PUBLISHED_SETTINGS) + plan_skips(timesteps[len(high) :], T2V_A14B_LOW, PUBLISHED_SETTINGS)
    return [t for t, skip in zip(timesteps, skips, strict=True) if skip]


def cached(expert: Any, skipped: Sequence[float]) -> Any:
    """A clone of the MODEL whose blocks, at these timesteps, are replaced by what all of them added to their input at the last other one."""
    clone, cache, count = expert.clone(), ResidualCache(skipped), len(expert.model.diffusion_model.blocks)
    for index in range(count):
        clone.set_model_patch_replace(cache.patch(first=index == 0, last=index == count - 1), "dit", BLOCK, index)
    return clone


class ResidualCache:
    """What all blocks of one expert added to their input (B, tokens, dim) last time, per conditioning: they come apart or in one batch."""

    def __init__(self, skipped: Sequence[float]) -> None:
        self.skipped = [round(t, 1) for t in skipped]
        self.residuals: dict[Any, torch.Tensor] = {}
        self.block_input = torch.zeros(0)

    def patch(self, first: bool, last: bool) -> Any:
        def block(args: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
            options, image = args["transformer_options"], args["img"]
            if round(float(options["sigmas"][0]) * 1000, 1) in self.skipped:
                return {"img": image + torch.cat([self.residuals[key] for key in options["uuids"]])} if first else {"img": image}
            if first:
                self.block_input = image
            output = extra["original_block"](args)["img"]
            if last:
                self.residuals.update(zip(options["uuids"], (output - self.block_input).chunk(len(options["uuids"])), strict=True))
            return {"img": output}

        return block
