"""A latent as a VIDEO that decodes itself when it is pulled, and does not lose the latent when that fails."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import comfy.model_management
import comfy.sd
import folder_paths
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ...engine.checkpoints import T2V_CHANNELS
from ...engine.choices import check_range
from ...engine.frames import FrameStream, section
from ...engine.video.sizes import LATENT_STRIDE
from ..models.memory import is_out_of_memory
from .latents import PROMPT, Latent, check_latent, frame_count
from .lazy import LazyVideo
from .vae import decoded

MIN_RATE, MAX_RATE = 4, 60


class DecodingFailed(RuntimeError):
    """The VAE could not decode; the text says why and where the latent is."""


def decode(latent: Latent, vae: comfy.sd.VAE, frames_per_second: int) -> LazyVideo:
    """VIDEO with exactly the frames that were asked for; of a batch of latents one clip after the other, with a seam between them.

    ValueError for a latent or a VAE that does not fit.
    """
    check_range("frames_per_second", frames_per_second, MIN_RATE, MAX_RATE)
    check_vae(vae)
    samples = latent["samples"]
    check_latent("samples", samples, "Connect what a sampler made from Wan 2.2 Empty Latent.",
                 "There is no picture in it. Run the sampler again, with another weight_dtype or without --fast if it happens every time.")
    frames, (batch, _, _, height, width) = frame_count(latent), samples.shape
    keep_latent = partial(kept_latent, samples)
    stream = FrameStream(width * LATENT_STRIDE, height * LATENT_STRIDE, batch * frames, Fraction(frames_per_second),
                         lambda: _decoded_clips(vae, samples, frames, keep_latent), seams=tuple(range(frames, batch * frames, frames)))
    return LazyVideo(stream, keep_latent, latent.get(PROMPT, ""))


def check_vae(vae: comfy.sd.VAE) -> None:
    """ValueError unless the VAE has the 16 latent channels of Wan 2.1."""
    channels = getattr(vae, "latent_channels", T2V_CHANNELS)
    if channels != T2V_CHANNELS:
        raise ValueError(f"this VAE has {channels} latent channels; Wan 2.2 T2V A14B needs the Wan 2.1 VAE with {T2V_CHANNELS}. "
                         "Load wan_2.1_vae.safetensors (wan2.2_vae belongs to the 5B model).")


def kept_latent(samples: torch.Tensor) -> Path:
    """Write the latent where core's Load Latent lists it, in the format of core's Save Latent; returns the path."""
    path = _unused(Path(folder_paths.get_input_directory()), time.strftime("wan22_kept_%Y%m%d_%H%M%S"))
    try:
        save_file({"latent_tensor": samples.contiguous().cpu(), "latent_format_version_0": torch.tensor([])}, str(path))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _unused(folder: Path, stem: str) -> Path:
    """`stem`.latent, or with a number behind the stem where two runs fail in one second; claimed against other runs by an empty file."""
    for number in itertools.count(1):
        path = folder / f"{stem}{'' if number == 1 else f'_{number}'}.latent"
        with contextlib.suppress(FileExistsError):
            path.touch(exist_ok=False)
            return path
    raise AssertionError("there is always another number")


def where_kept(keep_latent: Callable[[], Path] | None) -> str:
    """A sentence for an error message: where the latent went, or why it could not be kept; empty when there is none."""
    if keep_latent is None:
        return ""
    try:
        return f" The latent is kept as {keep_latent()}: core's Load Latent opens it for Wan 2.2 Decode."
    except (OSError, SafetensorError) as error:
        return f" The latent could not be kept either: {error}. It is still in ComfyUI's memory: change what failed and run again."


def _decoded_clips(vae: comfy.sd.VAE, samples: torch.Tensor, frames: int, keep_latent: Callable[[], Path]) -> Iterator[torch.Tensor]:
    try:
        for clip in samples.split(1):
            yield from (_finite(chunk) for chunk in section(decoded(vae, clip), 0, frames))
    except comfy.model_management.InterruptProcessingException:
        raise
    except Exception as error:
        cure = " Close other programs that use the GPU, or start ComfyUI with --cpu-vae." if is_out_of_memory(error) else ""
        raise DecodingFailed(f"decoding failed: {error}.{cure}{where_kept(keep_latent)}") from error


def _finite(chunk: torch.Tensor) -> torch.Tensor:
    if not torch.isfinite(chunk.sum(dtype=torch.float32)):
        raise ArithmeticError("the VAE made NaN, which would be black frames. Start ComfyUI with --bf16-vae or --fp32-vae")
    return chunk
