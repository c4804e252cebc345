"""How a clip differs from another one of the same scene: PSNR, SSIM, flicker and saturation, of 8-bit frames (T, H, W, 3)."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

import clips

AT_ONCE = 8  # frames


@dataclass(frozen=True)
class Likeness:
    """PSNR in dB (infinite where equal), SSIM (1 where equal); flicker and saturation as shares of the other clip's (1 where equal)."""

    psnr: float
    ssim: float
    flicker: float
    saturation: float


def likeness(clip: np.ndarray, reference: np.ndarray) -> Likeness:
    """`clip` beside `reference`; ValueError where they differ in size or number of frames."""
    if clip.shape != reference.shape:
        raise ValueError(f"the clips have shapes {clip.shape} and {reference.shape}; only clips of one size and length can be compared.")
    more_flicker, more_saturation = (share(measure(clip), measure(reference)) for measure in (flicker, saturation))
    return Likeness(psnr(clip, reference), ssim(clip, reference), more_flicker, more_saturation)


def psnr(clip: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all frames."""
    error = sum(float(np.square(a.astype(np.float32) - b).sum(dtype=np.float64)) for a, b in zip(parts(clip), parts(reference), strict=True))
    return 10 * math.log10(255**2 * clip.size / error) if error else math.inf


def ssim(clip: np.ndarray, reference: np.ndarray) -> float:
    """Mean structural similarity of the luma."""
    pairs = zip(parts(clip), parts(reference), strict=True)
    return sum(clips.ssim(torch.from_numpy(a) / 255, torch.from_numpy(b) / 255) * len(a) for a, b in pairs) / len(clip)


def flicker(clip: np.ndarray) -> float:
    """Mean absolute difference of successive frames, in levels; 0 for a picture."""
    changes = [float(np.abs(after.astype(np.int16) - before).mean()) for before, after in zip(clip, clip[1:], strict=False)]
    return sum(changes) / max(1, len(changes))


def saturation(clip: np.ndarray) -> float:
    """Mean saturation of the pixels as HSV has it, 0..1."""
    return sum(float(hsv_saturation(part).mean()) * len(part) for part in parts(clip)) / len(clip)


def hsv_saturation(frames: np.ndarray) -> np.ndarray:
    most, least = frames.max(-1).astype(np.float32), frames.min(-1)
    return (most - least) / np.maximum(most, 1)


def share(value: float, reference: float) -> float:
    """Their quotient, 1 for two zeros."""
    return 1.0 if value == reference else value / reference if reference else math.inf


def parts(clip: np.ndarray) -> Iterator[np.ndarray]:
    """A few frames at a time: as floats they are four times as large."""
    return (clip[first : first + AT_ONCE] for first in range(0, len(clip), AT_ONCE))
