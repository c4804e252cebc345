"""Measure what forecasts of the velocity would have cost, for any pair of experts, in one run that computes every step."""

from typing import Any

import comfy.sample
import torch

from ...engine.sampling.calibration import ForecastErrors
from ...engine.sampling.experts import Guidance, Schedule
from ..models.memory import Model
from ..video.latents import Latent
from .run import guider, solver


def calibrate(high: Model, low: Model, positive: Any, negative: Any, guidance: Guidance, latent: Latent, seed: int, schedule: Schedule,
              boundary: float) -> tuple[ForecastErrors, ForecastErrors]:
    """Errors of the high-noise and the low-noise expert's forecasts."""
    experts = guider(high, low, positive, negative, guidance, schedule.shift, "none", boundary)
    sampler, sigmas = solver(schedule.solver), schedule.sigmas()
    plan, errors = experts.plan(sampler, sigmas), {True: ForecastErrors(), False: ForecastErrors()}

    def note(number: int, x0: torch.Tensor, x: torch.Tensor, total: int) -> None:
        step = plan.steps[number]
        errors[step.high].note(step.timestep, (x - x0) / step.sigma)

    noise = comfy.sample.prepare_noise(latent["samples"], seed)
    experts.follow(plan, noise, latent["samples"], sampler, sigmas, None, note, True, seed)
    return errors[True], errors[False]
