"""How near a clip is to another one of the same seed: edges, texture, place, flicker and size, finer than the judge's words."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np
import torch

from miniature.judge import STRIPED, Array, Parts, Track, stripe_amplitude
from miniature.scenes import STRIPES_PER_PICTURE

LOST = 0.5  # of the picture: how far off a shape counts in a frame that does not show it
INSIDE = 0.75  # of coverage: the shape without its edge


@dataclass(frozen=True)
class Fidelity:
    """A clip against its reference; a clip against itself is SAME. The stripes are NaN where the reference has none."""

    sharpness: float  # slope of the coverage across the shape's edge, as a share of the reference's
    position: float  # distance between the shapes' centres, mean over the frames, in pixels
    area: float  # difference of the shapes' areas, mean over the frames, as a share of the reference's
    flicker: float  # rms change of background and shape from frame to frame that the reference has not, in levels of 255
    stripe_strength: float  # amplitude of the stripes in the background, mean over the frames, as a share of the reference's
    stripe_regularity: float  # share of the background's variance that repeats from stripe to stripe, as a share of the reference's

    def loss(self) -> "Fidelity":
        """Distance of each measure from SAME."""
        return Fidelity(*np.abs(np.subtract(astuple(self), astuple(SAME))).tolist())


SAME = Fidelity(1.0, 0.0, 0.0, 0.0, 1.0, 1.0)
MEASURES = tuple(field.name for field in fields(Fidelity))
STRIPES = ("stripe_strength", "stripe_regularity")  # what only a striped clip shows


def fidelity(clip: torch.Tensor, reference: torch.Tensor) -> Fidelity:
    """Measure a clip (T, H, W, 3) in 0..1 against one of the same shape; ValueError for a reference without a shape."""
    if clip.shape != reference.shape:
        raise ValueError(f"a clip {tuple(clip.shape)} cannot be measured against one of {tuple(reference.shape)}. Draw both in one size.")
    one, other = Look.of(clip), Look.of(reference)
    if not np.isfinite(other.track.area).any():
        raise ValueError("the reference shows no shape. Choose another prompt or seed.")
    striped = other.strength.mean() > STRIPED
    return Fidelity(one.slope / other.slope, position_error(one.track, other.track, clip.shape[1]), area_error(one.track, other.track),
                    flicker(shift_of_colours(one, other)), float(one.strength.mean() / other.strength.mean()) if striped else np.nan,
                    float(one.regularity.mean() / other.regularity.mean()) if striped else np.nan)


def mean(many: Sequence[Fidelity]) -> Fidelity:
    return Fidelity(*np.mean([astuple(one) for one in many], axis=0).tolist())


def standard_error(many: Sequence[Fidelity]) -> Fidelity:
    """Of the mean over at least two clips."""
    return Fidelity(*(np.std([astuple(one) for one in many], axis=0, ddof=1) / len(many) ** 0.5).tolist())


@dataclass(frozen=True)
class Look:
    """What is measured in one clip of T frames: the clip without stripes (T, H, W, 3), the shape's coverage (T, H, W) and track, slope of its edge in
    1/pixel, amplitude (T,) and regularity (T,) of the stripes."""

    plain: Array
    alpha: Array
    track: Track
    slope: float
    strength: Array
    regularity: Array

    @staticmethod
    def of(clip: torch.Tensor) -> "Look":
        parts = Parts.of(clip)
        alpha = np.zeros_like(parts.alpha) if parts.empty() else parts.alpha
        white = ((parts.inner - parts.background) / (1 - parts.background)).mean(axis=-1)
        frames = list(zip(white, alpha == 0, strict=True))
        strength = np.array([stripe_amplitude(stripe_rows(*frame), parts.picture) for frame in frames])
        regularity = np.array([stripe_regularity(*frame, parts.picture) for frame in frames])
        return Look(parts.plain, alpha, Track.of(alpha), edge_slope(alpha), strength, regularity)


def edge_slope(alpha: Array) -> float:
    """Slope of coverage (T, H, W) where it rises, in 1/pixel: 1/w for a straight ramp of w pixels, at any length of the edge; 0 without an edge.

    The integral of a slope is the length of the edge, whatever its width; that of the squared slope is the length times the slope.
    """
    squared = sum(np.square(np.gradient(alpha, axis=axis)) for axis in (1, 2))
    length = np.sqrt(squared).sum()
    return float(squared.sum() / length) if length else 0.0


def position_error(track: Track, reference: Track, picture: int) -> float:
    """Mean distance in pixels over the frames in which the reference's shape is seen."""
    distance = np.linalg.norm(track.centre - reference.centre, axis=1)[np.isfinite(reference.area)]
    return float(np.nan_to_num(distance, nan=LOST * picture).mean())


def area_error(track: Track, reference: Track) -> float:
    """Mean relative difference over the frames in which the reference's shape is seen; 1 for a frame without the shape."""
    seen = np.isfinite(reference.area)
    return float(np.abs(np.nan_to_num(track.area[seen]) / reference.area[seen] - 1).mean())


def shift_of_colours(one: Look, other: Look) -> Array:
    """By how much the colours of background and shape differ (T, 2, 3), mean over the pixels that are background, or inside the shape, in both clips;
    NaN where there are none."""
    masks = (one.alpha == 0) & (other.alpha == 0), (one.alpha > INSIDE) & (other.alpha > INSIDE)
    return np.stack([masked_mean(one.plain - other.plain, mask) for mask in masks], axis=1)


def masked_mean(clip: Array, mask: Array) -> Array:
    """Mean colour (T, 3) of the pixels in the mask (T, H, W), frame by frame; NaN where the mask is empty."""
    count = mask.sum(axis=(1, 2)).astype(np.float32)
    return (clip * mask[..., None]).sum(axis=(1, 2)) / np.where(count > 0, count, np.nan)[:, None]


def flicker(colours: Array) -> float:
    """How far colours (T, ...) in 0..1 are from the mean of the frames before and after, in levels of 255: a for a change by +a, -a, +a, ..., 0 for a
    steady drift. Root of the mean square over frames, parts and channels."""
    rough = (colours[1:-1] - (colours[:-2] + colours[2:]) / 2) / 2
    return float(255 * np.sqrt(np.nanmean(np.square(rough))))


def stripe_rows(white: Array, background: Array) -> Array:
    """White of each row (H,) of a picture (H, W), mean over the background; rows without background have the mean of the others."""
    count = background.sum(axis=1)
    rows = (white * background).sum(axis=1) / np.maximum(count, 1)
    return np.where(count > 0, rows, rows[count > 0].mean())


def stripe_regularity(white: Array, background: Array, picture: int) -> float:
    """Share of the variance of white (H, W) over the background that the place in the stripe explains, 0..1."""
    place = np.broadcast_to((np.arange(len(white)) % (picture // STRIPES_PER_PICTURE))[:, None], white.shape)[background]
    values = white[background]
    mean_by_place = np.bincount(place, values) / np.maximum(np.bincount(place), 1)
    return float(np.var(mean_by_place[place]) / max(1e-9, np.var(values)))
