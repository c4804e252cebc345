"""Measure the magnitude curves that acceleration needs, for any pair of experts, in one run that computes every step."""

from typing import Any

from ...engine.sampling.caching import MagnitudeCurve
from ...engine.sampling.experts import Guidance, Schedule, StepPlan
from ..models.memory import Model
from ..video.latents import Latent
from .acceleration import CONDITIONAL, UNCONDITIONAL, MagnitudeRecorder
from .guider import ExpertPairGuider
from .run import plan_for, sample


class CalibrationGuider(ExpertPairGuider):
    """Both experts with a recorder around their blocks."""

    recorders: dict[bool, MagnitudeRecorder]

    def new_cache(self, model: Model) -> MagnitudeRecorder:
        recorder = MagnitudeRecorder(len(model.model.diffusion_model.blocks))
        self.recorders[model is self.high] = recorder
        return recorder

    def patches_blocks(self, plan: StepPlan) -> bool:
        return True


def calibrate(high: Model, low: Model, positive: Any, negative: Any, guidance: Guidance, latent: Latent, seed: int, schedule: Schedule,
              boundary: float) -> tuple[MagnitudeCurve, MagnitudeCurve]:
    """Curves of the high-noise and the low-noise expert; ValueError when guidance 1 leaves a branch unmeasured."""
    if 1.0 in (guidance.high, guidance.low):
        raise ValueError(f"guidance is {guidance.high} / {guidance.low}; calibration measures both branches: set both above 1.")
    plans: list[StepPlan] = []

    def plan(sampler: Any, sigmas: Any) -> StepPlan:
        plans.append(plan_for(sampler, sigmas, boundary, guidance, "none"))
        return plans[-1]

    guider = CalibrationGuider(high, low, positive, negative, guidance, schedule.shift, boundary, plan)
    guider.recorders = {}
    sample(guider, latent, seed, schedule)
    by_expert = ([step.timestep for step in plans[0].steps if step.high is is_high] for is_high in (True, False))
    curves = tuple(_curve(timesteps, guider.recorders[is_high]) for timesteps, is_high in zip(by_expert, (True, False), strict=True))
    return curves[0], curves[1]


def _curve(timesteps: list[float], recorder: MagnitudeRecorder) -> MagnitudeCurve:
    return MagnitudeCurve(tuple(timesteps), tuple(zip(recorder.ratios[CONDITIONAL], recorder.ratios[UNCONDITIONAL], strict=True)))
