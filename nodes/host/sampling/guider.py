"""Two experts behind one CFGGuider: each is loaded when the first step asks for it and leaves when the other one is needed."""

from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.sampler_helpers
import comfy.samplers
import torch

from ...engine.choices import check_range
from ...engine.sampling.experts import Guidance, is_high_noise
from ...engine.sampling.noise import MOST_LEFTOVER, white_noise
from ...engine.sampling.plan import EXPERT_NAMES, StepPlan
from ..messages import show_now
from ..models.lora_spans import with_loras_on
from ..models.memory import Model, make_room_at_switch, make_room_for, on_device
from ..video.latents import check_latent
from .expert import Expert, Start, check_expert, with_shift

Plan = Callable[[comfy.samplers.Sampler, torch.Tensor], StepPlan]


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
            raise ValueError(f"negative is not connected, but guidance is {self.guidance.scales}. "
                             "Connect Wan 2.2 Text Encode's negative, or set both guidance scales to 1, without an opening.")
        self._check_noise(noise, latent_image)
        return Run(self, plan, seed).sample(noise, latent_image, sampler, sigmas, denoise_mask, callback, disable_pbar, seed)

    def _check_noise(self, noise: torch.Tensor, latent_image: torch.Tensor) -> None:
        leftover = white_noise(self.high.model.process_latent_in(latent_image)) if noise.any() else 0.0
        if leftover > MOST_LEFTOVER:
            raise ValueError(f"latent_image still holds noise, {leftover:.1f} times the spread of a finished video; {MOST_LEFTOVER} is the most. "
                             "New noise on top would undo the steps that made it. Set return_with_leftover_noise to disable before it, or go on from "
                             "it with Wan 2.2 Guider on SamplerCustomAdvanced, DisableNoise and the rest of the sigmas.")


class Run:
    """One sampling run: what the solver takes for the model, and the expert that is active in it.

    An expert whose LoRAs come and go is there once for each set of them: clones of one model, whose weights are patched when the set's steps begin.
    """

    start: Start
    sampler_options: dict[str, Any]

    def __init__(self, pair: ExpertPairGuider, plan: StepPlan, seed: int | None) -> None:
        self.boundary, self.plan, self.seed = pair.boundary, plan, seed
        self.calls = 0
        self.device = pair.high.load_device
        self.active: Expert | None = None
        of_pair = ((True, pair.high, pair.guidance.high), (False, pair.low, pair.guidance.low))
        self.experts = {(high, loras): Expert(with_loras_on(model, loras), pair.positive, pair.negative, guidance)
                        for high, model, guidance in of_pair for loras in plan.lora_sets(high)}
        nested = [*self.experts.values()]
        for expert, inner in zip(nested, [*(expert.sample for expert in nested[1:]), self.solve], strict=True):
            expert.then = inner
        self.sample = nested[0].sample

    def solve(self, noise: torch.Tensor, latent_image: torch.Tensor, sampler: comfy.samplers.Sampler, sigmas: torch.Tensor,
              denoise_mask: torch.Tensor | None, callback: Any, disable_pbar: bool, seed: int | None) -> torch.Tensor:
        """The innermost call, inside the hooks and OUTER_SAMPLE wrappers of all experts: run the solver over all steps."""
        self.start = self._started(noise, latent_image, denoise_mask)
        sigmas = sigmas.to(self.device)
        sample = comfy.patcher_extension.WrapperExecutor.new_class_executor(sampler.sample, sampler, sampler_wrappers(self.experts.values()))
        try:
            with on_device(self.device):
                make_room_for(self._needed_models(), self.start.noise.shape, self._some_expert(high=True).conds)
                self._activate(sigmas[0], 1)
                self.published = {"transformer_options": {"sample_sigmas": sigmas}}
                self.sampler_options = comfy.patcher_extension.merge_nested_dicts(self.model_options, self.published)
                extra_args = {"model_options": self.sampler_options, "seed": seed}
                start = self.start
                samples = sample.execute(self, sigmas, extra_args, callback, start.noise, start.latent_image, start.denoise_mask, disable_pbar)
                return self.inner_model.process_latent_out(samples.to(torch.float32))
        finally:
            self._deactivate()

    def __call__(self, x: torch.Tensor, sigma: torch.Tensor, model_options: dict[str, Any] | None = None, seed: int | None = None) -> torch.Tensor:
        """Denoised latent at noise level `sigma` (B,), computed by the expert that was trained there or forecast from what it computed before."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        t = float(sigma.flatten()[0])
        self.calls += 1
        number = self.calls if self.plan.one_call_a_step else self.plan.number_at(t)
        expert = self._activate(sigma, number)
        if not self.plan.forecasts:
            return expert.denoised(x, sigma, self._options_for(expert, model_options or {}), seed)
        trend = self.plan.steps[number - 1].trend  # of the whole batch: no sampler but ours has forecasts in its plan
        if trend is not None:
            return x - t * expert.velocity.at(t, trend)
        denoised = expert.denoised(x, sigma, self._options_for(expert, model_options or {}), seed)
        expert.velocity.note(t, (x - denoised) / t)
        return denoised

    predict_noise = __call__

    def _started(self, noise: torch.Tensor, latent_image: torch.Tensor, denoise_mask: torch.Tensor | None) -> Start:
        """What the wrappers passed on, on the device."""
        latent_image = latent_image.to(device=self.device, dtype=torch.float32)
        if torch.count_nonzero(latent_image) > 0:
            latent_image = self._some_expert(high=True).model_patcher.model.process_latent_in(latent_image)
        if denoise_mask is not None:
            denoise_mask = comfy.sampler_helpers.prepare_mask(denoise_mask, noise.shape, self.device)
        return Start(noise.to(device=self.device, dtype=torch.float32), latent_image, denoise_mask, self.seed)

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

    def _some_expert(self, high: bool) -> Expert:
        return next(expert for (of_high, _), expert in self.experts.items() if of_high is high)

    def _activate(self, sigma: torch.Tensor, number: int) -> Expert:
        """The expert for a noise level, as it is in the step of this number."""
        timestep = self._some_expert(high=True).model_patcher.get_model_object("model_sampling").timestep(sigma.flatten()[0].float())
        high = is_high_noise(float(timestep), self.boundary)
        expert = self.experts[high, self.plan.loras_at(number, high)]
        if expert is not self.active:
            if self.active is not None:
                done = self.active.model_patcher
                self._deactivate()
                make_room_at_switch(done, expert.model_patcher, self.start.noise.shape, expert.conds)
            self.active = expert
            show_expert_at_work(self.plan, number, high)
            expert.load(self.start)
        expert.guide(self.plan.guidance.at(number, high))
        return expert

    def _deactivate(self) -> None:
        if self.active is not None:
            self.active.leave()
            self.active = None

    def _needed_models(self) -> list[Model]:
        """One patcher for each expert that has steps."""
        return [self._some_expert(high).model_patcher for high in (True, False) if any(step.high is high for step in self.plan.steps)]


def show_expert_at_work(plan: StepPlan, number: int, high: bool) -> None:
    """From the step of this number on: the expert's steps with the same LoRAs."""
    loras = plan.loras_at(number, high)
    numbers = [other for other, step in enumerate(plan.steps, 1) if (step.high, step.loras) == (high, loras)]
    if numbers:  # not those of a sampler that asks for noise levels of its own
        show_now(f"{EXPERT_NAMES[high]}-noise expert: steps {numbers[0]} to {numbers[-1]} of {len(plan.steps)}", plan.describe())


def sampler_wrappers(experts: Iterable[Expert]) -> list[Any]:
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
