"""Two experts behind one CFGGuider: each is loaded when the first step asks for it and leaves when the other one is needed."""

from collections.abc import Callable
from itertools import chain
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import torch

from ...engine.checkpoints import T2V_CHANNELS
from ...engine.choices import check_range
from ...engine.sampling.experts import Guidance, StepPlan, is_high_noise
from ...engine.sampling.forecast import VelocityForecast
from ...engine.sampling.noise import MOST_LEFTOVER, white_noise
from ..messages import show_now
from ..models.memory import Model, make_room_at_switch, make_room_for, on_device
from ..video.latents import check_latent

TIMESTEP_ROUNDING = 1e-4
Plan = Callable[[comfy.samplers.Sampler, torch.Tensor], StepPlan]


class WanModelSampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    """Flow sampling whose whole timesteps stay whole: float32 turns 861 / 1000 * 1000 into 860.99994."""

    def timestep(self, sigma: torch.Tensor) -> torch.Tensor:
        t = super().timestep(sigma)
        whole = t.round()
        return torch.where((t - whole).abs() < TIMESTEP_ROUNDING, whole, t)


def with_shift(model: Model, shift: float) -> Model:
    """A clone of the expert that samples with `shift`; the model that came in keeps its own."""
    sampling = WanModelSampling(model.model.model_config)
    sampling.set_parameters(shift=shift)
    clone = model.clone()
    clone.add_object_patch("model_sampling", sampling)
    return clone


def check_expert(slot: str, model: Model) -> None:
    """ValueError unless the MODEL in `slot` is a Wan text-to-video transformer."""
    if not isinstance(model.model, comfy.model_base.WAN21):
        raise ValueError(f"{slot} is a {type(model.model).__name__} model, not Wan. Connect a Wan 2.2 T2V A14B expert.")
    config = model.model.model_config.unet_config
    channels, kind = config.get("in_dim", T2V_CHANNELS), config.get("model_type", "t2v")
    if kind != "t2v":
        raise ValueError(f"{slot} is a Wan {kind} model; this sampler runs text-to-video (t2v) experts. Connect a Wan 2.2 T2V A14B expert.")
    if channels != T2V_CHANNELS:
        raise ValueError(f"{slot} takes {channels} input channels; a Wan 2.2 text-to-video expert takes {T2V_CHANNELS}. "
                         "Image-to-video experts and the 5B model do not fit here.")


class Expert(comfy.samplers.CFGGuider):
    """One expert of a run. `sample` registers its hooks and wrappers and goes on with `then`; `load` makes it the active one."""

    def __init__(self, pair: "ExpertPairGuider", model: Model, guidance: float, then: Callable[..., torch.Tensor]) -> None:
        super().__init__(model)
        self.set_conds(pair.positive, pair.negative)
        self.set_cfg(guidance)
        self.then = then
        self.velocity = VelocityForecast()
        self.loaded_models: list[Any] = []
        self.conds: Any  # copied from the originals by CFGGuider.sample

    def outer_sample(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        then = self.then
        del self.then  # it leads back to the run: without it, nothing of a finished run waits for the garbage collector
        kwargs.pop("latent_shapes", None)
        return then(*args, **kwargs)

    def load(self, run: "Run") -> None:
        """Bring the weights to the GPU, pushing out what does not fit beside them, and prepare the conditioning."""
        self.inner_model, self.conds, self.loaded_models = comfy.sampler_helpers.prepare_sampling(
            self.model_patcher, run.noise.shape, self.conds, self.model_options)
        comfy.samplers.cast_to_load_options(self.model_options, device=run.device, dtype=self.model_patcher.model_dtype())
        self.model_patcher.pre_run()
        self.conds = comfy.samplers.process_conds(self.inner_model, run.noise, self.conds, run.device, run.latent_image,
                                                  run.denoise_mask, run.seed, latent_shapes=[run.noise.shape])

    def leave(self) -> None:
        """Undo `load`, also one that failed half-way, so that memory management may take the weights off the GPU."""
        self.velocity.clear()
        self.model_patcher.cleanup()
        comfy.sampler_helpers.cleanup_models(self.conds, self.loaded_models)
        self.inner_model, self.loaded_models = None, []


class ExpertPairGuider(comfy.samplers.CFGGuider):
    """A GUIDER that gives each step to the expert trained for its noise level, in one run of one solver.

    `plan` maps the sampler and the sigmas of a run to its StepPlan, which says of which steps the guided velocity is forecast.
    """

    def __init__(self, high: Model, low: Model, positive: Any, negative: Any, guidance: Guidance, shift: float, boundary: float, plan: Plan) -> None:
        check_expert("high_noise", high)
        check_expert("low_noise", low)
        check_range("boundary", boundary, 0.0, 1.0)
        self.high, self.low = with_shift(high, shift), with_shift(low, shift)
        self.guidance, self.boundary, self.plan = guidance, boundary, plan
        super().__init__(self.high)
        self.set_conds(positive, negative)

    def set_conds(self, positive: Any, negative: Any) -> None:
        self.positive, self.negative = positive, negative if negative is not None else []
        super().set_conds(self.positive, self.negative)

    def sample(self, noise: torch.Tensor, latent_image: torch.Tensor, sampler: comfy.samplers.Sampler, sigmas: torch.Tensor,
               denoise_mask: torch.Tensor | None = None, callback: Any = None, disable_pbar: bool = False,
               seed: int | None = None) -> torch.Tensor:
        """Run `sampler` from `noise` (B, 16, T, H/8, W/8) over `sigmas`; the core entry point of every GUIDER."""
        plan = self.plan(sampler, sigmas)
        return self.follow(plan, noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)

    def follow(self, plan: StepPlan, noise: torch.Tensor, latent_image: torch.Tensor, sampler: comfy.samplers.Sampler, sigmas: torch.Tensor,
               denoise_mask: torch.Tensor | None, callback: Any, disable_pbar: bool, seed: int | None) -> torch.Tensor:
        """The same with the plan of these sigmas at hand. ValueError for a latent that does not fit, or a negative prompt that is missing."""
        if len(sigmas) < 2:
            return latent_image
        check_latent("latent_image", latent_image, "Use Wan 2.2 Empty Latent (the 5B model's latent has 48 channels and does not fit).",
                     "Run the node that made it again.")
        if plan.needs_negative() and not self.negative:
            raise ValueError(f"negative is not connected, but guidance is {self.guidance.high} / {self.guidance.low}. "
                             "Connect Wan 2.2 Text Encode's negative, or set both guidance scales to 1.")
        self._check_noise(noise, latent_image)
        run = Run(self, plan, seed)
        return run.high.sample(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)

    def _check_noise(self, noise: torch.Tensor, latent_image: torch.Tensor) -> None:
        leftover = white_noise(self.high.model.process_latent_in(latent_image)) if noise.any() else 0.0
        if leftover > MOST_LEFTOVER:
            raise ValueError(f"latent_image still holds noise, {leftover:.1f} times the spread of a finished video; {MOST_LEFTOVER} is the most. "
                             "New noise on top would undo the steps that made it. Set return_with_leftover_noise to disable before it, or go on from "
                             "it with Wan 2.2 Guider on SamplerCustomAdvanced, DisableNoise and the rest of the sigmas.")


class Run:
    """One sampling run: what the solver takes for the model, and the expert that is active in it."""

    noise: torch.Tensor
    latent_image: torch.Tensor
    denoise_mask: torch.Tensor | None
    network_sigmas: dict[str, Any]
    sampler_options: dict[str, Any]

    def __init__(self, pair: ExpertPairGuider, plan: StepPlan, seed: int | None) -> None:
        self.boundary, self.plan, self.seed = pair.boundary, plan, seed
        self.calls = 0
        self.device = pair.high.load_device
        self.low = Expert(pair, pair.low, pair.guidance.low, then=self.solve)
        self.high = Expert(pair, pair.high, pair.guidance.high, then=self.low.sample)
        self.active: Expert | None = None

    def solve(self, noise: torch.Tensor, latent_image: torch.Tensor, sampler: comfy.samplers.Sampler, sigmas: torch.Tensor,
              denoise_mask: torch.Tensor | None, callback: Any, disable_pbar: bool, seed: int | None) -> torch.Tensor:
        """The innermost call, inside the hooks and OUTER_SAMPLE wrappers of both experts: run the solver over all steps."""
        self._take(noise, latent_image, denoise_mask)
        sigmas = sigmas.to(self.device)
        sample = comfy.patcher_extension.WrapperExecutor.new_class_executor(sampler.sample, sampler, sampler_wrappers(self.high, self.low))
        try:
            with on_device(self.device):
                make_room_for(self._needed_models(), self.noise.shape, self.high.conds)
                self._activate(sigmas[0])
                self.published = {"transformer_options": {"sample_sigmas": sigmas}}
                self.sampler_options = comfy.patcher_extension.merge_nested_dicts(self.model_options, self.published)
                extra_args = {"model_options": self.sampler_options, "seed": seed}
                samples = sample.execute(self, sigmas, extra_args, callback, self.noise, self.latent_image, self.denoise_mask, disable_pbar)
                return self.inner_model.process_latent_out(samples.to(torch.float32))
        finally:
            self._deactivate()

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None) -> torch.Tensor:
        """Denoised latent at noise level `sigma` (B,), computed by the expert that was trained there or forecast from what it computed before."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        expert = self._activate(sigma)
        if not self.plan.forecasts:
            return expert(x, sigma, self._options_for(expert, model_options or {}), seed)
        step, self.calls = self.plan.steps[self.calls], self.calls + 1
        t = float(sigma[0])  # of the whole batch: no sampler but ours has forecasts in its plan
        if step.trend is not None:
            return x - t * expert.velocity.at(t, step.trend)
        denoised = expert(x, sigma, self._options_for(expert, model_options or {}), seed)
        expert.velocity.note(t, (x - denoised) / t)
        return denoised

    predict_noise = __call__

    def _take(self, noise: torch.Tensor, latent_image: torch.Tensor, denoise_mask: torch.Tensor | None) -> None:
        """What the wrappers passed on, on the device."""
        self.noise = noise.to(device=self.device, dtype=torch.float32)
        self.latent_image = latent_image.to(device=self.device, dtype=torch.float32)
        if torch.count_nonzero(self.latent_image) > 0:
            self.latent_image = self.high.model_patcher.model.process_latent_in(self.latent_image)
        self.denoise_mask = denoise_mask
        if denoise_mask is not None:
            self.denoise_mask = comfy.sampler_helpers.prepare_mask(denoise_mask, noise.shape, self.device)

    def _options_for(self, expert: Expert, sent: dict[str, Any]) -> dict[str, Any]:
        """The expert's own options, and what the sampler added to those it was given."""
        merge = comfy.patcher_extension.merge_nested_dicts
        return merge(merge(expert.model_options, self.published), added_options(self.sampler_options, sent))

    @property
    def inner_model(self) -> Any:
        return self._expert().inner_model

    @property
    def model_patcher(self) -> Model:
        return self._expert().model_patcher

    @property
    def model_options(self) -> dict[str, Any]:
        return self._expert().model_options

    @property
    def conds(self) -> Any:
        return self._expert().conds

    @property
    def cfg(self) -> float:
        return self._expert().cfg

    def _expert(self) -> Expert:
        assert self.active is not None, "a solver asked for the model before the run began"
        return self.active

    def _activate(self, sigma: torch.Tensor) -> Expert:
        timestep = self.high.model_patcher.get_model_object("model_sampling").timestep(sigma.flatten()[0].float())
        expert = self.high if is_high_noise(float(timestep), self.boundary) else self.low
        if expert is not self.active:
            if self.active is not None:
                done = self.active.model_patcher
                self._deactivate()
                make_room_at_switch(done, expert.model_patcher, self.noise.shape, expert.conds)
            self.active = expert
            show_expert_at_work(self.plan, high=expert is self.high)
            expert.load(self)
        return expert

    def _deactivate(self) -> None:
        if self.active is not None:
            self.active.leave()
            self.active = None

    def _needed_models(self) -> list[Model]:
        used = {step.high for step in self.plan.steps}
        return [expert.model_patcher for expert, high in ((self.high, True), (self.low, False)) if high in used]


def show_expert_at_work(plan: StepPlan, high: bool) -> None:
    numbers = [number for number, step in enumerate(plan.steps, 1) if step.high is high]
    if numbers:  # not those of a sampler that asks for noise levels of its own
        show_now(f"{'high' if high else 'low'}-noise expert: steps {numbers[0]} to {numbers[-1]} of {len(plan.steps)}", plan.describe())


def sampler_wrappers(*experts: Expert) -> list[Any]:
    """Wrappers around the sampler on any of the experts; one that is on several runs once."""
    kind = comfy.patcher_extension.WrappersMP.SAMPLER_SAMPLE
    wrappers = (comfy.patcher_extension.get_all_wrappers(kind, expert.model_options, is_model_options=True) for expert in experts)
    return list(dict.fromkeys(chain.from_iterable(wrappers)))


def added_options(before: Any, now: Any) -> Any:
    """What a sampler put into its model options beyond what it was given: new keys, new list items, replaced values."""
    if isinstance(now, dict):
        previous = before if isinstance(before, dict) else {}
        changed = {key: added_options(previous.get(key), value) for key, value in now.items() if value is not previous.get(key)}
        return {key: value for key, value in changed.items() if not (isinstance(value, (dict, list)) and not value)}
    if isinstance(now, list):
        return [item for item in now if not any(item is old for old in before or [])]
    return now
