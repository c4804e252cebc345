"""What happens to a finished clip before it is written: it is reversed, or becomes a loop without a visible seam."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..choices import check_choice
from ..frames import CHUNK, Audio, FrameStream
from .spool import backwards, spool

OFF, PING_PONG, CROSS_FADE = LOOPS = ("off", "ping-pong", "cross-fade")
FADED_PART = 5  # a fifth of the clip: at 81 frames a second


@dataclass(frozen=True)
class Edit:
    """The wishes for one clip, done in this order: backwards, made a loop. ValueError for an unknown loop."""

    reverse: bool = False
    loop: str = OFF

    def __post_init__(self) -> None:
        check_choice("loop", self.loop, LOOPS)

    def stream(self, stream: FrameStream) -> FrameStream:
        """Number of frames and sound of `stream` as they are afterwards; what it pulls is not changed."""
        sound = stream.audio
        if sound is not None and self.reverse:
            sound = sound.backwards(stream.duration)
        if sound is not None and self.loop != OFF:
            sound = looped_sound(sound, self.loop, stream)
        return replace(stream, audio=sound, count=looped_count(self.loop, stream.count))

    @property
    def changes_frames(self) -> bool:
        return self.reverse or self.loop != OFF

    def clip(self, clip: Iterator[np.ndarray], count: int, folder: Path) -> Iterator[np.ndarray]:
        """Chunks (T, H, W, 3) of levels of a clip of `count` frames, edited in bounded memory; frames that are needed again lie in `folder`."""
        if self.reverse:
            clip = backwards(clip, folder)
        if self.loop == PING_PONG:
            return ping_pong(clip, folder)
        return cross_faded(clip, fade_length(count), folder) if self.loop == CROSS_FADE else clip


def looped_count(loop: str, count: int) -> int:
    """Frames that a clip of `count` frames has as a loop."""
    if loop == PING_PONG:
        return max(count, 2 * count - 2)
    return count - fade_length(count) if loop == CROSS_FADE else count


def fade_length(count: int) -> int:
    """Frames of the end that are faded into as many of the beginning, of a clip of `count` frames: a fifth; none of fewer than three."""
    return max(count // FADED_PART, int(count > 2))


def ping_pong(clip: Iterator[np.ndarray], folder: Path) -> Iterator[np.ndarray]:
    """`clip` forwards, then backwards without its last and its first frame, so that neither is shown twice where the loop turns."""
    with spool(folder) as kept:
        for chunk in clip:
            kept.append(chunk)
            yield chunk
        yield from kept.backwards(1, kept.count - 1)


def cross_faded(clip: Iterator[np.ndarray], faded: int, folder: Path) -> Iterator[np.ndarray]:
    """A loop of `clip` whose last `faded` frames are faded into its first ones, as steadily as they are many.

    It begins after the faded frames and ends with them: in a loop that is the same, and frames can be handed on while the clip is made.
    A clip that turns out shorter than twice `faded` is faded over fewer frames.
    """
    with spool(folder) as kept:
        position = faded
        for chunk in clip:
            kept.append(chunk)
            if kept.count - faded - position >= CHUNK:
                yield from kept.forwards(position, kept.count - faded)
                position = kept.count - faded
        if kept.count < 2 * faded:
            position = faded = fade_length(kept.count)
        end = kept.count - faded
        yield from kept.forwards(position, end)
        for first in range(0, faded, CHUNK):
            last = min(faded, first + CHUNK)
            weights = (np.arange(first, last, dtype=np.float32) + 1) / (faded + 1)
            yield _mixed(kept.frames(end + first, end + last), kept.frames(first, last), weights)


def _mixed(leaving: np.ndarray, coming: np.ndarray, weights: np.ndarray) -> np.ndarray:
    share = weights[:, None, None, None]
    return np.rint(leaving * (1 - share) + coming * share).astype(leaving.dtype)


def looped_sound(sound: Audio, loop: str, stream: FrameStream) -> Audio:
    """The sound of `stream`'s frames as the loop plays them: back again after a turn; as `cross_faded`, from after the faded part to its end."""
    whole = sound.lasting(stream.duration)
    frame = float(1 / stream.rate)
    if loop == PING_PONG:
        back = whole.part(frame, stream.duration - 2 * frame) if stream.count > 2 else None
        return whole if back is None else replace(sound, waveform=torch.cat([whole.waveform, back.waveform.flip(-1)], dim=-1))
    faded = round(fade_length(stream.count) * frame * sound.sample_rate)
    if not faded:
        return whole
    weights = torch.linspace(0, 1, faded)
    leaving, coming = whole.waveform[:, -faded:], whole.waveform[:, :faded]
    return replace(sound, waveform=torch.cat([whole.waveform[:, faded:-faded], leaving * (1 - weights) + coming * weights], dim=-1))
