"""Read a video file: its frames as a stream, upright and in true colours, and its sound, each sample at its time."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter

from ..frames import CHUNK, Audio
from .recording import Recording

Source = str | io.BytesIO
ACCURATE = 0x4 | 0x2000 | 0x40000  # of swscale: BICUBIC, FULL_CHR_H_INT, ACCURATE_RND. Without them each time a file is read costs a level
WHITE_OF_LIMITED_RANGE = 255 * 256  # in swscale's 16 bit, which shifts the eight bits up; full range and RGB have 65535
FULL_RANGE = 2  # AVCOL_RANGE_JPEG


def frames(source: Source) -> Iterator[torch.Tensor]:
    """Chunks (T, H, W, 3) of the first video stream, in the order they are shown, upright."""
    waiting: list[np.ndarray] = []
    reformatter = VideoReformatter()
    with av.open(_rewound(source), "r") as container:
        for frame in container.decode(video=0):
            waiting.append(_picture(frame, reformatter))
            if len(waiting) == CHUNK:
                yield _chunk(waiting)
                waiting = []
    if waiting:
        yield _chunk(waiting)


@dataclass(frozen=True)
class Description:
    """What a file holds: size in pixels as it is shown, frames, frames per second, the sound in floats, the width of a pixel by its height.

    `opaque` files have no alpha: what `frames` reads as ComfyUI does, within two levels.
    """

    width: int
    height: int
    count: int
    rate: Fraction
    audio: Audio | None
    pixel_aspect: Fraction
    opaque: bool


def description(source: Source) -> Description:
    """The file read once: its first frame decoded, all sound of the last stream that can be decoded, and the packets of frames counted where the
    header gives no number (WebM and Matroska). ValueError for a file without frames.
    """
    with av.open(_rewound(source), "r") as container:
        video = next(iter(container.streams.video), None)
        sound = next((stream for stream in reversed(container.streams.audio) if stream.codec_context is not None), None)
        first: av.VideoFrame | None = None
        times, recording = Times(), Recording()
        for packet in container.demux([stream for stream in (video, sound) if stream is not None]):
            if packet.stream is sound:
                recording.take(packet)
                continue
            times.take(packet)
            first = first or next((frame for frame in packet.decode() if isinstance(frame, av.VideoFrame)), None)
            if first and video and video.frames and not sound:
                break
        if video is None or first is None:
            raise ValueError(f"{source} holds no video frames; choose another file.")
        count = video.frames or times.count
        rate = _rate(container, video, times)
        aspect, (width, height) = video.sample_aspect_ratio or Fraction(1), (first.width, first.height)
        if _quarter_turns(first) % 2:
            aspect, width, height = 1 / aspect, height, width
        return Description(width, height, count, rate, recording.audio(first.time or 0.0, float(count / rate)), aspect, _is_opaque(first))


class Times:
    """When the frames of a stream are shown, by its packets."""

    def __init__(self) -> None:
        self.count, self.begin, self.end = 0, float("inf"), float("-inf")

    def take(self, packet: "av.Packet[Any]") -> None:
        if not packet.size:
            return
        self.count += 1
        if packet.pts is not None and packet.time_base is not None:
            self.begin = min(self.begin, float(packet.pts * packet.time_base))
            self.end = max(self.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))

    @property
    def duration(self) -> float:
        """In seconds, 0 where no packet has a time."""
        return max(0.0, self.end - self.begin)


def _rate(container: av.container.InputContainer, video: av.VideoStream, times: Times) -> Fraction:
    """As ComfyUI's VideoFromFile has it, but where frames come at varying times: there the one that keeps the duration."""
    average = video.average_rate or Fraction(0)
    if not video.frames and times.count > 1 and times.duration and not _keeps(average, times):
        return Fraction(times.count / times.duration).limit_denominator(1001)
    if average:
        return average
    if video.frames and container.duration:
        return Fraction(video.frames * av.time_base, container.duration)
    return Fraction(1)


def _keeps(rate: Fraction, times: Times) -> bool:
    """Whether that many frames at this rate last as long, within two frames."""
    return bool(rate) and abs(times.count / rate - times.duration) <= 2 / rate


def _is_opaque(frame: av.VideoFrame) -> bool:
    return frame.format.name != "pal8" and not any(component.is_alpha for component in frame.format.components)


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Against the clock, that make the picture upright."""
    return round(getattr(frame, "rotation", 0) / 90)


def _picture(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """(H, W, 3) in 0..1, float32."""
    if all(component.bits <= 8 for component in frame.format.components):
        levels, white = reformatter.reformat(frame, format="rgb24", interpolation=ACCURATE).to_ndarray(), 255
    else:
        levels = reformatter.reformat(frame, format="rgb48le", interpolation=ACCURATE).to_ndarray()
        white = 65535 if frame.format.is_rgb or frame.color_range == FULL_RANGE else WHITE_OF_LIMITED_RANGE
    return np.minimum(np.rot90(levels, _quarter_turns(frame)) / np.float32(white), 1)


def _rewound(source: Source) -> Source:
    """A buffer of its own per reader: streams of one source may be pulled at the same time."""
    return io.BytesIO(source.getbuffer()) if isinstance(source, io.BytesIO) else source


def _chunk(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures))
