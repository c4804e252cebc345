"""A clip with new frames between its frames, computed while it streams: one pair of frames is held at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from einops import rearrange

from .scenes import similarity
from .warp import Warped

MOST_NEW_FRAMES = 4
SMALLEST_SIDE = 32
SCENE_CUT = 0.5  # FACTS.md: found 10 of 10 cuts, none in 30 other pairs


class Network(Protocol):
    """What RIFE, FILM and optical flow have in common."""

    multiple: int  # both sides of an image must be multiples of it, in pixels
    recursive: frozenset[int]  # numbers of new frames that are reached by halving again and again

    def features(self, frame: torch.Tensor) -> Any:
        """What is known of one frame (1, 3, H, W)."""

    def pair(self, first: Any, second: Any) -> Any:
        """What two frames have in common at every t."""

    def between(self, pair: Any, timesteps: torch.Tensor) -> Warped:
        """New frames at `timesteps` (n)."""


def total_frames(count: int, new_frames: int) -> int:
    """Frames of a clip of `count` frames once it is interpolated."""
    return max(0, (count - 1) * (new_frames + 1) + 1)


def is_cuda_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.cuda.OutOfMemoryError)


@dataclass(frozen=True)
class Interpolator:
    """A network, where and in which type it computes, how many moments it computes at once, and what running out of memory looks like there."""

    network: Network
    device: torch.device
    dtype: torch.dtype = torch.float32
    timestep_batch: int = MOST_NEW_FRAMES
    is_out_of_memory: Callable[[Exception], bool] = is_cuda_out_of_memory

    def __post_init__(self) -> None:
        if self.timestep_batch < 1:
            raise ValueError(f"timestep_batch is {self.timestep_batch}; it must be 1 or more.")


def interpolate(clip: Iterator[torch.Tensor], new_frames: int, interpolator: Interpolator, scene_cut: float | None = SCENE_CUT,
                computed: Callable[[int], None] | None = None) -> Iterator[torch.Tensor]:
    """The chunks (T, H, W, 3) of `clip`, 0..1, with `new_frames` (0..4) frames put in between: N frames become `total_frames`.

    Given frames come out as they went in, one by one; new ones in their type, a chunk for each pair. Where the scene changes (the two frames,
    bent to one moment, are less alike than `scene_cut`, 0..1; None looks for no cuts), the frame before the cut is repeated, so that
    it stays on screen as long as in the clip that came in. `computed` is told how many new frames each step made, and may raise to stop.

    ValueError: a number out of range, an empty clip, frames of another size, below 32 x 32, not RGB, or with NaN or infinite values.
    """
    if not 0 <= new_frames <= MOST_NEW_FRAMES:
        raise ValueError(f"{new_frames} new frames per pair were asked for; choose 0 to {MOST_NEW_FRAMES}.")
    if scene_cut is not None and not 0 <= scene_cut <= 1:
        raise ValueError(f"scene_cut is {scene_cut}; it must be between 0 (never a cut) and 1.")
    return _Run(interpolator, new_frames, scene_cut, computed).frames(clip) if new_frames else clip


class _Run:
    """One pass over one clip; remembers how many moments fitted into memory."""

    def __init__(self, interpolator: Interpolator, new_frames: int, scene_cut: float | None, computed: Callable[[int], None] | None) -> None:
        self.interpolator, self.network = interpolator, interpolator.network
        self.new_frames, self.scene_cut, self.computed = new_frames, scene_cut, computed
        self.batch = interpolator.timestep_batch

    def frames(self, clip: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        before: torch.Tensor | None = None
        features: Any = None
        for frame in _checked_frames(clip):
            if before is not None:
                features = self._features(before) if features is None else features
                features_next = self._features(frame)
                yield self._between(before, features, features_next)
                features = features_next
            yield frame
            before = frame
        if before is None:
            raise ValueError("the clip is empty: it has 0 frames, interpolation needs at least 1. Check what feeds the video.")

    @torch.no_grad()
    def _features(self, frame: torch.Tensor) -> Any:
        image = rearrange(frame, "t h w c -> t c h w").to(self.interpolator.device, self.interpolator.dtype)
        height, width = image.shape[-2:]
        return self.network.features(F.pad(image, (0, -width % self.network.multiple, 0, -height % self.network.multiple), mode="replicate"))

    @torch.no_grad()
    def _between(self, before: torch.Tensor, features: Any, features_next: Any) -> torch.Tensor:
        """The new frames of one pair, (new_frames, H, W, 3) like `before` (1, H, W, 3)."""
        height, width = before.shape[1:3]
        if self.new_frames in self.network.recursive:
            new = self._halving(features, features_next, self.new_frames)
        else:
            new = self._at(features, features_next, [(index + 1) / (self.new_frames + 1) for index in range(self.new_frames)])
        middle = slice(self.new_frames // 2, self.new_frames // 2 + 1)
        bent = (image[middle, :, :height, :width] for image in (new.first, new.second))
        if self.scene_cut is not None and similarity(*bent) < self.scene_cut:
            return before.expand(self.new_frames, -1, -1, -1)
        frames = rearrange(new.frames[..., :height, :width].clamp(0, 1), "t c h w -> t h w c")
        return frames.to(before.device, before.dtype).contiguous()

    def _halving(self, features: Any, features_next: Any, count: int) -> Warped:
        """1, 3, 7, ... new frames, each half-way between two others."""
        middle = self._at(features, features_next, [0.5])
        if count == 1:
            return middle
        features_middle = self.network.features(middle.frames.clamp(0, 1))
        earlier = self._halving(features, features_middle, count // 2)
        return _joined([earlier, middle, self._halving(features_middle, features_next, count // 2)])

    def _at(self, features: Any, features_next: Any, moments: list[float]) -> Warped:
        """At several moments at once, as many as fit into memory."""
        pair = self.network.pair(features, features_next)
        timesteps = torch.tensor(moments, device=self.interpolator.device)
        made: list[Warped] = []
        done = 0
        while done < len(moments):
            try:
                made.append(self.network.between(pair, timesteps[done : done + self.batch]))
            except Exception as error:
                if self.batch == 1 or not self.interpolator.is_out_of_memory(error):
                    raise
                self.batch = self.batch // 2
            else:
                done += len(made[-1].frames)
                if self.computed is not None:
                    self.computed(len(made[-1].frames))
        return _joined(made)


def _joined(parts: list[Warped]) -> Warped:
    if len(parts) == 1:
        return parts[0]
    return Warped(*(torch.cat(images) for images in zip(*((part.frames, part.first, part.second) for part in parts), strict=True)))


def _checked_frames(clip: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """One by one, (1, H, W, 3); ValueError for what cannot be interpolated."""
    shape: torch.Size | None = None
    index = 0
    for chunk in clip:
        for at in range(len(chunk)):
            frame = chunk[at : at + 1]
            shape = _checked_shape(frame, index, shape)
            if not frame.isfinite().all():
                raise ValueError(f"frame {index} holds NaN or infinite values; pixels must be 0..1. Decode it again, with the VAE in float32.")
            yield frame
            index += 1


def _checked_shape(frame: torch.Tensor, index: int, expected: torch.Size | None) -> torch.Size:
    _, height, width, channels = frame.shape
    if expected is not None and frame.shape != expected:
        raise ValueError(f"frame {index} is {width}x{height}, those before it are {expected[2]}x{expected[1]}. "
                         "Resize the frames to one size before interpolating.")
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(f"frame {index} is {width}x{height}; interpolation needs at least {SMALLEST_SIDE}x{SMALLEST_SIDE}. Enlarge the video first.")
    if channels != 3:
        raise ValueError(f"frame {index} has {channels} channels; interpolation needs 3 (RGB). Drop the alpha channel first.")
    return frame.shape
