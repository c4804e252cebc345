"""Sampling through ComfyUI: our solvers as SAMPLER, the two experts as GUIDER, progress and previews as KSampler shows them."""

from typing import Any

import comfy.model_management
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch

from ..engine.sampling.experts import SamplingSettings, StepPlan
from ..engine.sampling.schedules import TRAIN_TIMESTEPS
from ..engine.sampling.solvers import Solver, solver_named
from .experts import ExpertPairGuider, Model
from .latents import Latent


class FlowSampler(comfy.samplers.Sampler):
    """One of the pack's solvers as a SAMPLER that any guider can run."""

    def __init__(self, solver: Solver) -> None:
        self.solver = solver

    def sample(self, model_wrap: Any, sigmas: torch.Tensor, extra_args: dict[str, Any], callback: Any, noise: torch.Tensor,
               latent_image: torch.Tensor | None = None, denoise_mask: torch.Tensor | None = None, disable_pbar: bool = False) -> torch.Tensor:
        levels = [float(sigma) for sigma in sigmas]
        model = comfy.samplers.KSamplerX0Inpaint(model_wrap, sigmas)
        model.latent_image, model.noise = latent_image, noise

        def predict(x: torch.Tensor, sigma: float) -> torch.Tensor:
            told = self.solver.timestep(sigma) / TRAIN_TIMESTEPS
            denoised = model(x, x.new_full((x.shape[0],), told), denoise_mask=denoise_mask, **extra_args)
            return denoised if told == sigma else x - sigma / told * (x - denoised)

        def report(step: int, x0: torch.Tensor, x: torch.Tensor) -> None:
            if callback is not None:
                callback(step, x0, x, len(levels) - 1)

        x = noise
        if not self.solver.starts_from_noise(levels[0]):
            x = model_wrap.inner_model.model_sampling.noise_scaling(sigmas[0], noise, latent_image)
        x = self.solver.solve(predict, x, levels, report)
        return model_wrap.inner_model.model_sampling.inverse_noise_scaling(sigmas[-1], x)


def sample(high: Model, low: Model, positive: Any, negative: Any, latent: Latent, seed: int, settings: SamplingSettings) -> Latent:
    """Sample one latent across both experts. Shapes (B, 16, T, H/8, W/8); ValueError for models or latents that do not fit."""
    solver = solver_named(settings.solver)
    guider = ExpertPairGuider(high, low, settings.shift, settings.boundary)
    guider.set_conds(positive, negative)
    guider.set_guidance(settings.guidance_high, settings.guidance_low)
    samples = latent["samples"]
    noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    callback = latent_preview.prepare_callback(guider.model_patcher, settings.steps)
    sampled = guider.sample(noise, samples, FlowSampler(solver), solver.sigmas(settings.steps, settings.shift),
                            denoise_mask=latent.get("noise_mask"), callback=callback,
                            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED, seed=seed)
    result = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio_")}
    result["samples"] = sampled.to(comfy.model_management.intermediate_device())
    return result


def report(settings: SamplingSettings) -> str:
    """One line that says which expert does what."""
    line = StepPlan.of_settings(settings).describe()
    if settings.acceleration == "regular":
        line += "; acceleration regular: skips no step yet"
    return line
