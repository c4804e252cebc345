"""Read a video file as a stream of frames."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
import torch

from ..frames import CHUNK, Audio

Source = str | io.BytesIO


def frames(source: Source) -> Iterator[torch.Tensor]:
    """Chunks (T, H, W, 3) of the first video stream, in the order they are shown."""
    waiting: list[np.ndarray] = []
    with av.open(_rewound(source), "r") as container:
        for frame in container.decode(video=0):
            waiting.append(frame.to_ndarray(format="rgb24"))
            if len(waiting) == CHUNK:
                yield _chunk(waiting)
                waiting = []
    if waiting:
        yield _chunk(waiting)


@dataclass(frozen=True)
class Description:
    """What a file holds: size in pixels, frames, frames per second, the sound in floats.

    `plain` files are eight bit, upright and without alpha: what `frames` reads as ComfyUI does, within two levels.
    """

    width: int
    height: int
    count: int
    rate: Fraction
    audio: Audio | None
    plain: bool


def description(source: Source) -> Description:
    """The file read once: its first frame decoded, all sound of the last stream that can be decoded, and the packets of frames counted where the
    header gives no number (WebM and Matroska). ValueError for a file without frames.
    """
    with av.open(_rewound(source), "r") as container:
        video = container.streams.video[0]
        sound = next((stream for stream in reversed(container.streams.audio) if stream.codec_context is not None), None)
        first: av.VideoFrame | None = None
        packets, parts, to_float = 0, list[np.ndarray](), av.AudioResampler(format="fltp")
        for packet in container.demux(video, *([sound] if sound else [])):
            if packet.stream is sound:
                parts += [part.to_ndarray() for frame in packet.decode() for part in to_float.resample(frame)]
                continue
            packets += packet.size > 0
            first = first or next(iter(packet.decode()), None)
            if first and video.frames and not sound:
                break
        parts += [part.to_ndarray() for part in to_float.resample(None)] if parts else []
        if first is None:
            raise ValueError(f"{source} holds no video frames; choose another file.")
        audio = Audio(torch.from_numpy(np.concatenate(parts, axis=1)), sound.rate) if sound and parts else None
        return Description(video.width, video.height, video.frames or packets, _rate(container, video), audio, _is_plain(first))


def _rate(container: av.container.InputContainer, video: av.VideoStream) -> Fraction:
    """As ComfyUI's VideoFromFile has it."""
    if video.average_rate:
        return video.average_rate
    if video.frames and container.duration:
        return Fraction(video.frames * av.time_base, container.duration)
    return Fraction(1)


def _is_plain(frame: av.VideoFrame) -> bool:
    components = frame.format.components
    return len(components) <= 3 and all(component.bits <= 8 for component in components) and getattr(frame, "rotation", 0) == 0


def _rewound(source: Source) -> Source:
    """A buffer of its own per reader: streams of one source may be pulled at the same time."""
    return io.BytesIO(source.getbuffer()) if isinstance(source, io.BytesIO) else source


def _chunk(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)) / 255.0
