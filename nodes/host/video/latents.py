"""LATENT as ComfyUI passes it: a dictionary with "samples" (B, 16, T, H/8, W/8) and what travels beside it."""

from inspect import signature
from typing import Any

import comfy.model_management
import comfy.sample
import torch

from ...engine.checkpoints import T2V_CHANNELS
from ...engine.video.sizes import LATENT_STRIDE, Size, decoded_frames, latent_frames
from ..models.memory import Model

Latent = dict[str, Any]
Conditioning = list[tuple[Any, dict[str, Any]]]
NUM_FRAMES = "wan22_num_frames"
PROMPT = "wan22_prompt"


def check_latent(slot: str, samples: torch.Tensor, shape_cure: str, value_cure: str) -> None:
    """ValueError unless what came in by `slot` is a finite Wan latent (B, 16, T, H, W); the cures end its sentences."""
    if samples.ndim != 5 or samples.shape[1] != T2V_CHANNELS:
        raise ValueError(f"{slot} has shape {tuple(samples.shape)}; Wan 2.2 T2V A14B needs (batch, {T2V_CHANNELS}, frames, height, width). "
                         f"{shape_cure}")
    if not torch.isfinite(samples).all():
        raise ValueError(f"{slot} holds NaN or infinite values. {value_cure}")


def as_sampled(model: Model, latent: Latent) -> torch.Tensor:
    """The samples as KSampler takes them: a picture (B, C, H, W) becomes a video of one frame, and zeros of another model get Wan's channels.

    Zeros with more channels stay: one of their places covers another number of pixels than Wan's.
    """
    samples: torch.Tensor = latent["samples"]
    if samples.shape[1] > T2V_CHANNELS:
        return samples
    widen = comfy.sample.fix_empty_latent_channels
    hints = {name: latent[name] for name in signature(widen).parameters if name in latent}  # of newer versions: pixels per place
    widened: torch.Tensor = widen(model, samples, **hints)
    return widened


def empty(size: Size, num_frames: int) -> Latent:
    """Zeros for `num_frames` frames; the exact number rides along so that decoding can trim to it."""
    shape = (1, T2V_CHANNELS, latent_frames(num_frames), size.height // LATENT_STRIDE, size.width // LATENT_STRIDE)
    return {"samples": torch.zeros(shape, device=comfy.model_management.intermediate_device()), NUM_FRAMES: num_frames}


def drawn_for(latent: Latent, positive: Conditioning) -> Latent:
    """The latent with the text of its conditioning, which the video's file will tell."""
    prompts = [options[PROMPT] for _, options in positive if PROMPT in options]
    rest = {key: value for key, value in latent.items() if key != PROMPT}
    return {**rest, PROMPT: "\n".join(prompts)} if prompts else rest


def frame_count(latent: Latent) -> int:
    """Frames the decoded video shall have: the number asked for, unless another node changed the latent's length since."""
    decoded = decoded_frames(latent["samples"].shape[2])
    asked = latent.get(NUM_FRAMES, decoded)
    return asked if decoded - 4 < asked <= decoded else decoded
