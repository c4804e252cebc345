"""Clips made in this process by the pack's own code: sampled under an acceleration, kept, decoded."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.frames import to_levels
from engine.sampling.experts import BOUNDARY, Guidance, Schedule
from engine.video.sizes import Size, latent_frames
from model_choice import with_lora

REFERENCE = "none"  # the acceleration that the others are compared with
RATE = 16  # frames per second


@dataclass(frozen=True)
class Settings:
    """What decides a clip beside its prompt and its acceleration. ValueError for what no run can have."""

    high: str
    low: str
    vae: str
    text_encoder: str
    lora_high: str | None
    lora_low: str | None
    width: int
    height: int
    frames: int
    solver: str
    steps: int
    shift: float
    guidance: tuple[float, float]
    seed: int

    def __post_init__(self) -> None:
        Size(self.width, self.height)
        latent_frames(self.frames)
        Schedule(self.solver, self.steps, self.shift)
        Guidance(*self.guidance)

    def title(self) -> str:
        return (f"{self.width}x{self.height}, {self.frames} frames, {self.steps} steps of {self.solver}, shift {self.shift:g}, "
                f"guidance {self.guidance[0]:g} / {self.guidance[1]:g}, seed {self.seed}")


@dataclass(frozen=True)
class Sampled:
    """A latent, the seconds that it took, and the calls of the network."""

    samples: torch.Tensor
    seconds: float
    model_calls: int

    def save(self, path: Path) -> None:
        part = path.with_name(f"{path.name}.part")
        save_file({"samples": self.samples.contiguous()}, part, {"seconds": str(self.seconds), "model_calls": str(self.model_calls)})
        part.replace(path)

    @staticmethod
    def load(path: Path) -> "Sampled":
        with safe_open(path, "pt") as file:
            about = file.metadata()
            return Sampled(file.get_tensor("samples"), float(about["seconds"]), int(about["model_calls"]))


class Studio:
    """The models, each loaded when it is first needed and through the pack's own code. ValueError where a file is missing or another one."""

    def __init__(self, pack: ModuleType, settings: Settings) -> None:
        self.settings, self.host, self.plan = settings, pack.nodes.host, pack.nodes.engine.sampling.experts
        files = self.host.models.files
        files.check_expert_files(settings.high, settings.low, "default")
        files.check_text_encoder_file(settings.text_encoder, "default")
        chosen = {"diffusion_models": (settings.high, settings.low), "vae": (settings.vae,), "text_encoders": (settings.text_encoder,),
                  "loras": tuple(filter(None, (settings.lora_high, settings.lora_low)))}
        self.files = [file_mark(files.model_path(folder, name)) for folder, names in chosen.items() for name in names]
        self.conditioning: dict[str, Any] = {}
        self.experts: tuple[Any, ...] = ()
        self.vae: Any = None

    @torch.inference_mode()
    def prepare(self, prompts: Sequence[str]) -> None:
        """Encode the prompts, after which the text encoder goes. ValueError for a VAE of another model, which would be seen hours later."""
        self._load_vae()
        clip = self.host.models.files.load_text_encoder(self.settings.text_encoder, "default")
        self.conditioning |= {prompt: self.host.text.encode(clip, prompt) for prompt in ("", *prompts)}
        del clip
        empty_gpu()

    @torch.inference_mode()
    def sampled(self, prompt: str, acceleration: str) -> Sampled:
        """Each clip begins with an empty GPU, so that none has the way of the experts to it for nothing."""
        if not self.experts:
            self.experts = self._load_experts()
            self._sample(prompt, REFERENCE, steps=2)  # or the first clip's seconds are those of the disk
        empty_gpu()
        begin = time.perf_counter()
        latent, plan = self._sample(prompt, acceleration, self.settings.steps)
        samples = latent["samples"].cpu()
        return Sampled(samples, time.perf_counter() - begin, plan.model_calls())

    def _load_experts(self) -> tuple[Any, ...]:
        load, settings = self.host.models.files.load_expert, self.settings
        return with_lora(load(settings.high, "default"), settings.lora_high), with_lora(load(settings.low, "default"), settings.lora_low)

    def _sample(self, prompt: str, acceleration: str, steps: int) -> Any:
        settings, run = self.settings, self.host.sampling.run
        guider = run.guider(*self.experts, self.conditioning[prompt], self.conditioning[""], self.plan.Guidance(*settings.guidance), settings.shift,
                            acceleration, BOUNDARY)
        return run.sample(guider, self._empty_latent(), settings.seed, self.plan.Schedule(settings.solver, steps, settings.shift))

    def _empty_latent(self) -> dict[str, Any]:
        return self.host.video.latents.empty(Size(self.settings.width, self.settings.height), self.settings.frames)

    @torch.inference_mode()
    def decoded(self, samples: torch.Tensor) -> np.ndarray:
        """The clip in 8-bit levels (T, H, W, 3): a quarter of what it takes as floats."""
        self._load_vae()
        video = self.host.video.decoding.decode({**self._empty_latent(), "samples": samples}, self.vae, RATE)
        return np.concatenate([to_levels(chunk) for chunk in video.stream.pull()])

    def _load_vae(self) -> None:
        import comfy.sd
        import comfy.utils
        if self.vae is None:
            self.vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(self.host.models.files.model_path("vae", self.settings.vae))))
            self.host.video.decoding.check_vae(self.vae)


def empty_gpu() -> None:
    import comfy.model_management
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()


def file_mark(path: Path) -> tuple[str, int, int]:
    """A file is another one where its name, its size or its time is another."""
    return path.name, path.stat().st_size, path.stat().st_mtime_ns
