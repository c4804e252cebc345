"""VIDEO as ComfyUI passes it: decoded from a latent, written to the output folder."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import comfy.cli_args
import comfy.model_management
import comfy.sd
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import Input, InputImpl, Types

from ..engine.checkpoints import T2V_CHANNELS
from ..engine.choices import check_range
from ..engine.frames import chunks
from ..engine.video.encode import VideoFormat, write_mp4
from .latents import Latent, frame_count
from .messages import log

MIN_RATE, MAX_RATE = 4, 60
NTSC_DENOMINATOR = 1001


def decode(latent: Latent, vae: comfy.sd.VAE, frames_per_second: int) -> Input.Video:
    """VIDEO with exactly the frames that were asked for; a batch of latents becomes one clip after the other."""
    check_range("frames_per_second", frames_per_second, MIN_RATE, MAX_RATE)
    check_vae(vae)
    images = vae.decode(latent["samples"])  # (B, T, H, W, C)
    clips = images[:, : frame_count(latent)].flatten(0, 1)
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=clips, audio=None, frame_rate=Fraction(frames_per_second)))


def check_vae(vae: comfy.sd.VAE) -> None:
    """ValueError unless the VAE has the 16 latent channels of Wan 2.1."""
    channels = getattr(vae, "latent_channels", T2V_CHANNELS)
    if channels != T2V_CHANNELS:
        raise ValueError(f"this VAE has {channels} latent channels; Wan 2.2 T2V A14B needs the Wan 2.1 VAE with {T2V_CHANNELS}. "
                         "Load wan_2.1_vae.safetensors (wan2.2_vae belongs to the 5B model).")


@dataclass(frozen=True)
class OutputFile:
    """A file in ComfyUI's output folder that does not exist yet."""

    path: Path
    subfolder: str


def new_file(filename_prefix: str, dimensions: tuple[int, int]) -> OutputFile:
    """The next numbered MP4 for this prefix."""
    output = check_prefix(filename_prefix)
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, str(output), *dimensions)
    return OutputFile(Path(folder) / f"{name}_{counter:05}_.mp4", subfolder)


def check_prefix(filename_prefix: str) -> Path:
    """The output folder; ValueError when the prefix names no file or leaves that folder."""
    output = Path(folder_paths.get_output_directory()).resolve()
    if not filename_prefix.strip() or filename_prefix.endswith(("/", "\\")):
        raise ValueError(f"filename_prefix is '{filename_prefix}'; give a file name, for example video/Wan22.")
    if not (output / filename_prefix).resolve().is_relative_to(output):
        raise ValueError(f"filename_prefix is '{filename_prefix}'; it must stay below the output folder {output}. "
                         "Remove the '..' or the leading '/'.")
    return output


def metadata(prompt: Any, extra_pnginfo: Mapping[str, Any] | None) -> dict[str, Any]:
    """What core's Save Video writes: workflow and prompt; nothing under --disable-metadata."""
    if comfy.cli_args.args.disable_metadata:
        return {}
    return {**(extra_pnginfo or {}), **({"prompt": prompt} if prompt is not None else {})}


def save(video: Input.Video, target: OutputFile, quality: str, write_mode: str, reverse: bool, tags: Mapping[str, Any]) -> Input.Video:
    """Write the frames of `video` with progress and interruption per chunk; returns the VIDEO of the new file."""
    components = video.get_components()
    height, width = components.images.shape[1:3]
    rate = Fraction(components.frame_rate).limit_denominator(NTSC_DENOMINATOR)  # core's CreateVideo makes fractions of floats
    if components.audio is not None:
        log.warning("[Wan 2.2] the audio of this video is not written yet; use core's Save Video to keep it")
    video_format = VideoFormat(width, height, rate, quality, write_mode)
    write_mp4(target.path, _with_progress(components.images, reverse), video_format, tags)
    return InputImpl.VideoFromFile(str(target.path))


def _with_progress(images: torch.Tensor, reverse: bool) -> Iterator[torch.Tensor]:
    progress = comfy.utils.ProgressBar(len(images))
    for chunk in chunks(images, reverse=reverse):
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield chunk
        progress.update(len(chunk))
