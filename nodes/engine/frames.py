"""Frame-stream vocabulary: a video is a function that yields chunks of frames, each a float tensor (T, H, W, C) with RGB in 0..1."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch

CHUNK = 8
Chunk = TypeVar("Chunk", torch.Tensor, np.ndarray)


@dataclass(frozen=True)
class Audio:
    """Sound beside the frames: waveform (channels, samples) in -1..1, samples per second."""

    waveform: torch.Tensor
    sample_rate: int

    def part(self, begin: float, duration: float) -> "Audio":
        """What sounds from `begin` for `duration`, in seconds."""
        first = round(begin * self.sample_rate)
        return replace(self, waveform=self.waveform[:, first : first + round(duration * self.sample_rate)])

    def backwards(self, duration: float) -> "Audio":
        """What sounds in the first `duration` seconds, silence included, from its end to its beginning."""
        length = round(duration * self.sample_rate)
        heard = torch.nn.functional.pad(self.waveform[:, :length], (0, max(0, length - self.waveform.shape[1])))
        return replace(self, waveform=heard.flip(-1))

    def lasting(self, duration: float) -> "Audio":
        """What sounds in the first `duration` seconds, silence included."""
        return self.backwards(duration).backwards(duration)


@dataclass(frozen=True)
class FrameStream:
    """A video that need not be in memory: size in pixels, number of frames, frames per second, and `pull`, which yields all chunks anew.
    `pixel_aspect` is the width of a pixel by its height.

    `count` is exact for what was decoded or interpolated here; for a file it is what its header says or, where that is silent, its packets counted.
    A batch is several videos, one after the other: `seams` are the frames, counted from 0, with which the second and later ones begin.
    """

    width: int
    height: int
    count: int
    rate: Fraction
    pull: Callable[[], Iterator[torch.Tensor]]
    audio: Audio | None = None
    pixel_aspect: Fraction = Fraction(1)
    seams: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ValueError(f"the frame rate is {self.rate}; it must be above 0.")
        if self.seams and any(begin >= end for begin, end in pairwise((0, *self.seams, self.count))):
            raise ValueError(f"the seams are {self.seams}; they must rise between 0 and the number of frames, {self.count}.")

    @property
    def duration(self) -> float:
        return float(self.count / self.rate)

    def part(self, first: int, count: int) -> "FrameStream":
        """The stream of `count` frames from frame `first` on; the frames before it are still computed, but not kept."""
        seconds = float(first / self.rate), float(count / self.rate)
        return replace(self, count=count, pull=lambda: section(self.pull(), first, count),
                       audio=self.audio.part(*seconds) if self.audio else None,
                       seams=tuple(seam - first for seam in self.seams if first < seam < first + count))

    @property
    def lengths(self) -> tuple[int, ...]:
        """Frames of each video of the batch."""
        return tuple(end - begin for begin, end in pairwise((0, *self.seams, self.count)))

    def clips(self) -> Iterator["FrameStream"]:
        """Each video of the batch, with its sound, as a stream without seams; all out of one pull: pull each once, to its end, in order."""
        if not self.seams:
            yield self
            return
        pulled = cut(self.pull(), self.seams)
        for first, count in zip((0, *self.seams), self.lengths, strict=True):
            clip = next(pulled)
            yield replace(self.part(first, count), pull=partial(iter, clip))


def joined(sounds: Sequence[tuple[Audio | None, float]]) -> Audio | None:
    """Sounds of one kind, each for as many seconds as its video lasts, one after the other; silence for those that have none."""
    first = next((sound for sound, _ in sounds if sound is not None), None)
    if first is None:
        return None
    silence = replace(first, waveform=first.waveform[:, :0])
    return replace(first, waveform=torch.cat([(sound or silence).lasting(seconds).waveform for sound, seconds in sounds], dim=-1))


def chunks(frames: torch.Tensor, size: int = CHUNK) -> Iterator[torch.Tensor]:
    """Cut frames (T, H, W, C) into chunks of at most `size` frames."""
    for start in range(0, len(frames), size):
        yield frames[start : start + size]


def section(clip: Iterator[torch.Tensor], first: int, count: int) -> Iterator[torch.Tensor]:
    """Frames `first` to `first + count - 1` of a stream."""
    position = 0
    for chunk in clip:
        wanted = chunk[max(0, first - position) : max(0, first + count - position)]
        position += len(chunk)
        if len(wanted):
            yield wanted
        if position >= first + count:
            return


def cut(clip: Iterator[Chunk], seams: tuple[int, ...]) -> Iterator[Iterator[Chunk]]:
    """The chunks before the first seam, those up to the next, and so on; each to be used up before the next. A chunk that lies across is cut."""
    waiting: list[Chunk] = []
    position = 0

    def until(end: float) -> Iterator[Chunk]:
        nonlocal position
        while position < end and (chunk := waiting.pop() if waiting else next(clip, None)) is not None:
            inside = int(min(len(chunk), end - position))
            if inside < len(chunk):
                waiting.append(chunk[inside:])
            position += inside
            yield chunk[:inside]

    return (until(end) for end in (*seams, math.inf))


def gathered(clip: Iterator[torch.Tensor], count: int) -> torch.Tensor:
    """The whole video in main memory, float32 (T, H, W, C): written chunk by chunk into one tensor of the expected length."""
    frames, position = torch.empty(0), 0
    for chunk in clip:
        if position == 0:
            frames = torch.empty((max(count, len(chunk)), *chunk.shape[1:]))
        if position + len(chunk) > len(frames):
            frames = torch.cat([frames, torch.empty((max(len(chunk), len(frames) // 2), *chunk.shape[1:]))])
        frames[position : position + len(chunk)] = chunk
        position += len(chunk)
    return frames[:position]


def to_levels(chunk: torch.Tensor, bit_depth: int = 8) -> np.ndarray:
    """Round float RGB 0..1 to levels (T, H, W, 3) on the device where the frames are: uint8, or above 8 bit uint16 with white at 255 * 256, which is
    what FFmpeg's swscale takes for white when it makes limited-range YUV; alpha dropped.
    """
    white, dtype = (255, torch.uint8) if bit_depth == 8 else (255 * 256, torch.int32)
    levels = chunk[..., :3].float().clamp(0, 1).mul_(white).round_().to(dtype).contiguous().cpu().numpy()
    return levels if bit_depth == 8 else levels.astype(np.uint16)
