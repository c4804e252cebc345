"""Sampling through ComfyUI: our solvers as SAMPLER, the two experts as GUIDER, progress and previews as KSampler shows them."""

from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import torch

from ...engine.log import log
from ...engine.sampling.experts import Guidance, Schedule
from ...engine.sampling.forecast import NOTHING_MEASURED, Measured
from ...engine.sampling.plan import StepPlan, accelerated, plan_steps
from ...engine.sampling.schedules import TRAIN_TIMESTEPS
from ...engine.sampling.solvers import solver_named
from ...engine.spans import NO_SPANS, LoraSpans
from ..models.forecast_files import measured_settings
from ..models.lora import missing_halves
from ..models.lora_spans import lora_spans
from ..models.memory import Model
from ..video.latents import Latent, as_sampled
from .guider import ExpertPairGuider
from .previews import StepReport


class FlowSampler(comfy.samplers.Sampler):
    """One of the pack's solvers as a SAMPLER that any guider can run."""

    def __init__(self, name: str) -> None:
        """ValueError for a name that is none of SOLVERS."""
        self.name, self.solver = name, solver_named(name)

    @torch.no_grad()
    def sample(self, model_wrap: Any, sigmas: torch.Tensor, extra_args: dict[str, Any], callback: Any, noise: torch.Tensor,
               latent_image: torch.Tensor | None = None, denoise_mask: torch.Tensor | None = None, disable_pbar: bool = False) -> torch.Tensor:
        levels = [float(sigma) for sigma in sigmas]
        extra_args = {**extra_args, "model_options": with_levels(extra_args.get("model_options", {}), noise.new_tensor(self.network_levels(levels)))}
        model = comfy.samplers.KSamplerX0Inpaint(model_wrap, sigmas)
        model.latent_image, model.noise = latent_image, noise

        def predict(x: torch.Tensor, sigma: float) -> torch.Tensor:
            t = self.solver.timestep(sigma) / TRAIN_TIMESTEPS
            denoised = model(x, x.new_full((x.shape[0],), t), denoise_mask=denoise_mask, **extra_args)
            return denoised if t == sigma else x - sigma / t * (x - denoised)

        def report(step: int, x0: torch.Tensor, x: torch.Tensor) -> None:
            if callback is not None:
                callback(step, x0, x, len(levels) - 1)

        x = noise
        if not self.solver.starts_from_noise(levels[0]) or not noise.any():  # without new noise, the latent goes on with its own
            x = model_wrap.inner_model.model_sampling.noise_scaling(sigmas[0], noise, latent_image)
        plan = getattr(model_wrap, "plan", None)  # of our guider; any other computes every step
        x = self.solver.solve(predict, x, levels, report, plan.forecasts if plan else ())
        return model_wrap.inner_model.model_sampling.inverse_noise_scaling(sigmas[-1], x)

    def network_levels(self, levels: list[float]) -> list[float]:
        """The noise levels that the network is told, whole timesteps for the official solvers, and the last one, at which nothing is computed."""
        return [*(self.solver.timestep(level) / TRAIN_TIMESTEPS for level in levels[:-1]), levels[-1]]


def with_levels(options: dict[str, Any], levels: torch.Tensor) -> dict[str, Any]:
    """A copy of model options that publishes these noise levels of the run: context windows look the current step up in them."""
    return {**options, "transformer_options": {**options.get("transformer_options", {}), "sample_sigmas": levels}}


def solver(name: str) -> FlowSampler:
    return FlowSampler(name)


def guider(high: Model, low: Model, positive: Any, negative: Any, guidance: Guidance, shift: float, acceleration: str,
           boundary: float) -> ExpertPairGuider:
    """A GUIDER over both experts; ValueError for models that are not Wan text-to-video experts. `negative` may be None at guidance 1."""

    notes, measured = missing_halves(high, low), {True: measured_settings(high), False: measured_settings(low)}
    loras = {True: lora_spans(high), False: lora_spans(low)}

    def plan(sampler: comfy.samplers.Sampler, sigmas: torch.Tensor) -> StepPlan:
        steps = plan_for(sampler, sigmas, boundary, guidance, acceleration, loras, measured).remarked(*notes)
        cache = core_cache(high) or core_cache(low)
        if cache and steps.forecasts:
            steps = steps.computed(f"acceleration off: {cache} is on an expert and skips steps by itself")
        log.info("%s", steps.describe())
        return steps

    return ExpertPairGuider(high, low, positive, negative, guidance, shift, boundary, plan)


def core_cache(model: Model) -> str:
    """Name of core's cache on this expert that skips steps by its own lights, EasyCache or LazyCache; empty without."""
    holder = model.model_options.get("transformer_options", {}).get("easycache")
    return "" if holder is None else str(getattr(holder, "name", "EasyCache"))


def plan_for(sampler: comfy.samplers.Sampler, sigmas: torch.Tensor, boundary: float, guidance: Guidance, acceleration: str,
             loras: LoraSpans = NO_SPANS, measured: Measured = NOTHING_MEASURED) -> StepPlan:
    """The plan of a run, with the LoRAs by step that its models carry and the forecast settings that were `measured` for them; another pack's or
    core's sampler calls the model when it likes, so that nothing can be forecast."""
    levels = [float(sigma) for sigma in sigmas[:-1]]
    if not isinstance(sampler, FlowSampler):
        plan = plan_steps(levels, [sigma * TRAIN_TIMESTEPS for sigma in levels], boundary, guidance, loras)
        return replace(plan, one_call_a_step=False)
    timesteps = [sampler.solver.timestep(sigma) for sigma in levels]
    return accelerated(plan_steps(levels, timesteps, boundary, guidance, loras), acceleration, sampler.name, measured)


def sample(experts: ExpertPairGuider, latent: Latent, seed: int, schedule: Schedule) -> tuple[Latent, StepPlan]:
    """Sample one latent (B, 16, T, H/8, W/8) across both experts, and the plan of the run; ValueError for a latent that does not fit.

    Zeros that core's nodes for empty pictures make are widened as KSampler does.
    """
    sampler, sigmas, samples = solver(schedule.solver), schedule.sigmas(), as_sampled(experts.model_patcher, latent)
    plan = experts.plan(sampler, sigmas)
    noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    with StepReport(experts.model_patcher, schedule.steps) as report:
        sampled = experts.follow(plan, noise, samples, sampler, sigmas, latent.get("noise_mask"), report, not comfy.utils.PROGRESS_BAR_ENABLED, seed)
    result = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio_")}
    result["samples"] = sampled.to(comfy.model_management.intermediate_device())
    return result, plan
