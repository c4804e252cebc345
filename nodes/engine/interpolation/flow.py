"""New frames by optical flow, without weights: OpenCV's DIS (Kroeger et al., "Fast Optical Flow using Dense Inverse Search").

Where each pixel of either frame lies in the other is computed once per pair. At a moment in between, a pixel is offered several motions and takes
both frames along those that agree on its picture, so that what moves does not drag along what it uncovers.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange

from ..packages import opencv
from .warp import Warped

STEPS = 3  # in which a motion is followed back to the pixel that it begins at
WINDOW = 9  # pixels: the square in which two bent frames are compared
TOLERANCE = 0.04  # of 0..1: a motion whose frames differ by so much more than another's has 1/e of its weight
MEAN = np.full((1, 3), 1 / 3, np.float32)  # of the three colours


@dataclass(frozen=True)
class Frame:
    """What is known of one frame: colours (H, W, 3), float32 in 0..1, and grey levels (H, W), uint8."""

    colours: np.ndarray
    grey: np.ndarray


@dataclass(frozen=True)
class Flows:
    """Two frames, and where each pixel of the one lies in the other: (H, W, 2) in pixels, x before y; `grid` is each pixel's own place."""

    first: Frame
    second: Frame
    forward: np.ndarray
    backward: np.ndarray
    grid: np.ndarray

    def motions(self, t: float) -> Iterator[np.ndarray]:
        """Ways from the first frame to the second for each pixel at `t`: what either frame's flow says at its place, and what leads to it."""
        forward, backward = self.forward, -self.backward
        yield forward
        yield backward
        for _ in range(STEPS):
            forward, backward = self.read(self.forward, -t * forward), -self.read(self.backward, (1 - t) * backward)
        yield forward
        yield backward

    def along(self, motion: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
        """Both frames as they look at `t`, where each pixel goes the way `motion` (H, W, 2)."""
        return self.read(self.first.colours, -t * motion), self.read(self.second.colours, (1 - t) * motion)

    def read(self, image: np.ndarray, offset: np.ndarray) -> np.ndarray:
        """The image (H, W, C) read at `offset` (H, W, 2) pixels from each pixel, bilinear, clamped at the borders."""
        cv2 = opencv()
        return np.asarray(cv2.remap(image, self.grid + offset, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


class OpticalFlow:
    """A stream.Network that has nothing to load and computes on the CPU."""

    multiple = 1
    recursive: frozenset[int] = frozenset()

    def features(self, frame: torch.Tensor) -> Frame:
        """Of a frame (1, 3, H, W) in 0..1, on any device."""
        cv2 = opencv()
        colours = rearrange(frame, "1 c h w -> h w c").float().clamp(0, 1).cpu().contiguous().numpy()
        return Frame(colours, np.rint(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY) * 255).astype(np.uint8))

    def pair(self, first: Frame, second: Frame) -> Flows:
        height, width = first.grey.shape
        grid = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), -1)
        return Flows(first, second, flow(first.grey, second.grey), flow(second.grey, first.grey), grid)

    def between(self, pair: Flows, timesteps: torch.Tensor) -> Warped:
        """The frames at `timesteps` (n), each in 0..1: (n, 3, H, W), and both frames bent along the mean of the flows, all on the CPU."""
        mean = (pair.forward - pair.backward) / 2  # one motion: where each pixel has a choice, unrelated frames become alike too, and no cut shows
        made = ((mixed(pair, t), *pair.along(mean, t)) for t in timesteps.tolist())
        return Warped(*(rearrange([torch.from_numpy(image) for image in images], "n h w c -> n c h w") for images in zip(*made, strict=True)))


def flow(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Where each pixel of a grey picture (H, W), uint8, lies in another: (H, W, 2) in pixels, x before y."""
    cv2 = opencv()  # DIS is made anew each time: small pictures change its settings for good
    return np.asarray(cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(here, there, None))


def mixed(pair: Flows, t: float) -> np.ndarray:
    """The frame (H, W, 3) at `t`: both frames along every motion, weighted by how alike it makes them around a pixel."""
    cv2 = opencv()
    total = np.zeros_like(pair.first.colours)
    weights = np.zeros((*pair.first.grey.shape, 1), np.float32)
    for motion in pair.motions(t):
        first, second = pair.along(motion, t)
        difference = cv2.blur(cv2.transform(cv2.absdiff(first, second), MEAN), (WINDOW, WINDOW))
        weight = np.exp(-difference / TOLERANCE)[..., None]
        weights += weight
        total += weight * cv2.addWeighted(first, 1 - t, second, t, 0)
    return total / weights
