"""Measure what forecasts of the velocity would have cost, for any pair of experts, in one run that computes every step."""

from dataclasses import dataclass
from typing import Any

import comfy.sample
import torch

from ...engine.sampling.calibration import ALLOWED, ForecastErrors, StepError, proposed
from ...engine.sampling.experts import Guidance, Schedule
from ...engine.sampling.forecast import ForecastSettings, settings_at
from ...engine.sampling.plan import Step
from ..models.memory import Model
from ..video.latents import Latent
from .run import guider, solver


@dataclass(frozen=True)
class Calibration:
    """Of one expert: the errors of forecasts of each step, and the settings of `regular` that they propose."""

    errors: list[StepError]
    settings: ForecastSettings


def calibrate(high: Model, low: Model, positive: Any, negative: Any, guidance: Guidance, latent: Latent, seed: int, schedule: Schedule,
              boundary: float) -> dict[bool, Calibration]:
    """What forecasts would have cost the high-noise expert (True) and the low-noise one (False), and the settings that follow."""
    experts = guider(high, low, positive, negative, guidance, schedule.shift, "none", boundary)
    sampler, sigmas = solver(schedule.solver), schedule.sigmas()
    plan, errors = experts.plan(sampler, sigmas), {True: ForecastErrors(), False: ForecastErrors()}

    def note(number: int, x0: torch.Tensor, x: torch.Tensor, total: int) -> None:
        step = plan.steps[number]
        errors[step.high].note(step.timestep, (x - x0) / step.sigma)

    noise = comfy.sample.prepare_noise(latent["samples"], seed)
    experts.follow(plan, noise, latent["samples"], sampler, sigmas, None, note, True, seed)
    return {high: _calibration(errors[high].errors, [step for step in plan.steps if step.high is high], schedule.solver, scale, high)
            for high, scale in ((True, guidance.high), (False, guidance.low))}


def _calibration(errors: list[StepError], steps: list[Step], solver: str, scale: float, high: bool) -> Calibration:
    return Calibration(errors, proposed(errors, settings_at("regular", solver, len(steps), scale, high), ALLOWED[high]))
