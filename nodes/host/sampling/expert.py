"""One expert of a run as one of core's guiders: loaded when a step asks for it, and left when another one is needed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.model_sampling
import comfy.sampler_helpers
import comfy.samplers
import torch

from ...engine.checkpoints import T2V_CHANNELS
from ...engine.sampling.forecast import VelocityForecast
from ..models.cfg_split import CfgSplit
from ..models.memory import Model, on_device

TIMESTEP_ROUNDING = 1e-4


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


@dataclass(frozen=True)
class Start:
    """What a run starts from: noise and latent (B, 16, T, H/8, W/8) in the network's scale, and the mask in that shape."""

    noise: torch.Tensor
    latent_image: torch.Tensor
    denoise_mask: torch.Tensor | None
    seed: int | None

    def to(self, device: torch.device) -> "Start":
        mask = self.denoise_mask if self.denoise_mask is None else self.denoise_mask.to(device)
        return Start(self.noise.to(device), self.latent_image.to(device), mask, self.seed)


class Expert(comfy.samplers.CFGGuider):
    """One expert, as it is in some of a run's steps. `sample` registers its hooks and wrappers and goes on with `then`; `load` makes it the active
    one."""

    then: Callable[..., torch.Tensor]

    def __init__(self, model: Model, positive: Any, negative: Any, guidance: float) -> None:
        super().__init__(model)
        self.set_conds(positive, negative)
        self.set_cfg(guidance)
        self.velocity = VelocityForecast()
        self.loaded_models: list[Any] = []
        self.split: CfgSplit | None = None
        self.conds: Any  # copied from the originals by CFGGuider.sample

    def outer_sample(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        then = self.then
        del self.then  # it leads back to the run: without it, nothing of a finished run waits for the garbage collector
        kwargs.pop("latent_shapes", None)
        return then(*args, **kwargs)

    def guide(self, scale: float) -> None:
        """Guidance from now on; a velocity that was guided otherwise foretells nothing."""
        if scale != self.cfg:
            self.set_cfg(scale)
            self.velocity.clear()

    def load(self, start: Start) -> None:
        """Bring the weights to their GPU, pushing out what does not fit beside them, and prepare the conditioning there."""
        device = self.model_patcher.load_device
        here = start.to(device)
        self.inner_model, self.conds, self.loaded_models = comfy.sampler_helpers.prepare_sampling(
            self.model_patcher, here.noise.shape, self.conds, self.model_options)
        self.split = CfgSplit(self.model_patcher, self.loaded_models, self.model_options)
        comfy.samplers.cast_to_load_options(self.model_options, device=device, dtype=self.model_patcher.model_dtype())
        for patcher in (self.model_patcher, *self.split.clones):
            patcher.pre_run()
        self.conds = comfy.samplers.process_conds(self.inner_model, here.noise, self.conds, device, here.latent_image, here.denoise_mask, here.seed,
                                                  latent_shapes=[here.noise.shape])

    def denoised(self, x: torch.Tensor, sigma: torch.Tensor, model_options: dict[str, Any], seed: int | None) -> torch.Tensor:
        """What the expert makes of x (B, 16, T, H/8, W/8) at noise level `sigma` (B,), computed on its own device and brought back to that of x."""
        device = self.model_patcher.load_device
        options = model_options["transformer_options"]
        on_its_device = {**model_options, "transformer_options": {**options, "sample_sigmas": options["sample_sigmas"].to(device)}}
        with on_device(device):
            return self(x.to(device), sigma.to(device), on_its_device, seed).to(x.device)

    def leave(self) -> None:
        """Undo `load`, also one that failed half-way, so that memory management may take the weights off the GPU."""
        self.velocity.clear()
        self.model_patcher.cleanup()
        if self.split is not None:
            self.split.end()
        comfy.sampler_helpers.cleanup_models(self.conds, self.loaded_models)
        self.inner_model, self.loaded_models, self.split = None, [], None
