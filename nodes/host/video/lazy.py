"""VIDEO as ComfyUI passes it, lazy: frames are made when somebody pulls them, and become tensors only for who asks."""

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import comfy.model_management
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import Input, InputImpl, Types

from ...engine.frames import Audio, FrameStream, chunks, gathered, to_levels
from ...engine.video import read
from ...engine.video.formats import VideoFormat
from ...engine.video.write import PartFile, write, write_file

Chunk = TypeVar("Chunk", torch.Tensor, np.ndarray)
KeepLatent = Callable[[], Path]


class LazyVideo(Input.Video):
    """A frame stream behind ComfyUI's VIDEO interface, of 0.3.75 and of newer versions.

    `keep_latent` saves what the frames are decoded from and says where, for when writing them fails; `prompt` is what they were drawn for.
    """

    def __init__(self, stream: FrameStream, keep_latent: KeepLatent | None = None, prompt: str = "") -> None:
        self.stream, self.keep_latent, self.prompt = stream, keep_latent, prompt

    def get_components(self) -> Types.VideoComponents:
        """All frames in memory, float32 (T, H, W, 3), as core's nodes for images take them."""
        images = gathered(watched(self.stream.pull(), self.stream.count), self.stream.count)
        return Types.VideoComponents(images=images, audio=_to_comfy(self.stream.audio), frame_rate=self.stream.rate)

    def save_to(self, path: str | io.BytesIO, format: str = "auto", codec: str = "auto", metadata: dict[str, Any] | None = None,
                bit_depth: int | None = None, crf: float | None = None, preset: str | None = None, **newer: Any) -> None:
        """H.264 MP4 to a path or a buffer, frame by frame; ValueError for other formats, which core does not offer either."""
        for name, asked, ours in (("format", format, "mp4"), ("codec", codec, "h264")):
            if asked not in ("auto", ours, None):
                raise ValueError(f"{name} is '{asked}'; ComfyUI's Save Video writes {ours}. Use Wan 2.2 Save Video for other codecs and containers.")
        options = {name: str(value) for name, value in (("crf", crf), ("preset", preset)) if value is not None}
        video = VideoFormat(bit_depth=bit_depth or 8, options=options)
        tags = {**metadata, **comment(self)} if metadata else {}
        clip = watched(levels(self.stream, video), self.stream.count)
        if isinstance(path, io.BytesIO):
            write(path, clip, self.stream, video, tags)
        else:
            write_file(PartFile(Path(path), may_replace=True), clip, self.stream, video, tags)

    def as_trimmed(self, start_time: float | None = None, duration: float | None = None, strict_duration: bool = False) -> "LazyVideo | None":
        """The part from `start_time` (seconds, negative: from the end) for `duration` (0: to the end); None where nothing or too little is left."""
        stream, start = self.stream, start_time or 0.0
        first = max(0, round((start if start >= 0 else stream.duration + start) * stream.rate))
        asked = max(1, round(duration * stream.rate)) if duration else stream.count
        count = min(asked, stream.count - first)
        if count <= 0 or (strict_duration and duration and count < asked):
            return None
        return following(self, stream.part(first, count))

    def get_dimensions(self) -> tuple[int, int]:
        return self.stream.width, self.stream.height

    def get_frame_count(self) -> int:
        return self.stream.count

    def get_frame_rate(self) -> Fraction:
        return self.stream.rate

    def get_duration(self) -> float:
        return self.stream.duration

    def get_bit_depth(self) -> int:
        return 8

    def get_container_format(self) -> str:
        return "mp4"


def stream_of(video: Input.Video) -> FrameStream:
    """The frames of any VIDEO as a stream: from the decoder, from the file, or from the tensors it holds."""
    if isinstance(video, LazyVideo):
        return video.stream
    if isinstance(video, InputImpl.VideoFromFile) and _starts_at_the_beginning(video):
        source = video.get_stream_source()
        file = read.description(source)
        if file.opaque:
            return FrameStream(file.width, file.height, file.count, _exact(file.rate), lambda: read.frames(source), file.audio, file.pixel_aspect)
    components = video.get_components()
    count, height, width = components.images.shape[:3]
    return FrameStream(width, height, count, _exact(components.frame_rate), lambda: chunks(components.images), sound(components.audio))


def keep_latent_of(video: Input.Video) -> KeepLatent | None:
    return getattr(video, "keep_latent", None)


def following(video: Input.Video, stream: FrameStream) -> LazyVideo:
    """A VIDEO made of another one's frames: what is known of that one is known of it as well."""
    return LazyVideo(stream, keep_latent_of(video), getattr(video, "prompt", ""))


def comment(video: Input.Video) -> dict[str, str]:
    """The tag in which players show what a video was drawn for: the prompt as the experts got it, expanded if it was."""
    prompt = getattr(video, "prompt", "")
    return {"comment": prompt} if prompt else {}


def watched(clip: Iterator[Chunk], count: int) -> Iterator[Chunk]:
    """Pass chunks on with a progress bar on the running node and interruption between them; ValueError for an empty clip."""
    progress, done = comfy.utils.ProgressBar(count), 0
    for chunk in clip:
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield chunk
        done += len(chunk)
        progress.update_absolute(done, max(done, count))
    if done == 0:
        raise ValueError("the video has no frames; connect one that has.")


def watched_stream(video: Input.Video) -> FrameStream:
    """The frames of any VIDEO, with progress and interruption."""
    stream = stream_of(video)
    return replace(stream, pull=lambda: watched(stream.pull(), stream.count))


def levels(stream: FrameStream, video: VideoFormat) -> Iterator[np.ndarray]:
    """The stream as whole levels (T, H, W, 3) of the depth that the file wants, rounded where the frames are."""
    return (to_levels(chunk, video.level_depth) for chunk in stream.pull())


def _starts_at_the_beginning(video: Input.Video) -> bool:
    """Newer versions can hold a trimmed file, whose frames they pick by their times."""
    return not any(getattr(video, "get_active_trim_window", lambda: (0, 0))())


def _exact(rate: Fraction) -> Fraction:
    """Core's CreateVideo makes fractions of floats: 29.97 becomes 2997/100 again, NTSC rates x/1001; below 1 the seconds per frame are rounded."""
    return Fraction(rate).limit_denominator(1001) if rate >= 1 else 1 / (1 / Fraction(rate)).limit_denominator(1001) if rate > 0 else Fraction(rate)


def sound(audio: Any) -> Audio | None:
    """The sound of a batch's first video; without samples where other nodes left none, for `playable` to say so."""
    if not audio:
        return None
    waveform = audio.get("waveform")
    waveform = torch.empty(0, 0) if waveform is None else torch.as_tensor(waveform)
    while waveform.ndim > 2:
        waveform = waveform[0] if len(waveform) else torch.empty(0, 0)
    return Audio(torch.atleast_2d(waveform), _whole(audio.get("sample_rate")))


def _whole(rate: Any) -> int:
    """0 for what is no number."""
    try:
        return int(rate)
    except (TypeError, ValueError, OverflowError):
        return 0


def _to_comfy(audio: Audio | None) -> Any:
    return {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate} if audio else None
