"""An independent judge of clips: colour, shape, motion, stripes and frame by plain image measures, with no trained network."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from miniature.scenes import BACKGROUNDS, COLOURS, SHAPES, STRIPES_PER_PICTURE, Scene, outline

MARGIN = 5 / 64  # of the picture: what may hold a white frame is not looked at
REST = 0.09  # of the picture: a shape that moves less in a clip rests
ZOOM = 1.3  # growth of the shape's area that counts as a zoom
STRIPED, FRAMED, SEEN = 0.10, 0.70, 0.15
NOTHING = "nothing"
CANVAS, REACH = 40, 1.8  # the shape seen at one size: pixels, and reach from its centre in radii of the circle of its area
Array = np.ndarray


@dataclass(frozen=True)
class Verdict:
    """What the judge saw, in the words of the scenes; "nothing" where there is no shape. Strengths are 0 for none."""

    colour: str
    shape: str
    background: str
    direction: str
    camera: str
    striped: bool
    framed: bool
    stripe_strength: float
    displacement: tuple[float, float]

    def agrees(self, scene: Scene, *names: str) -> bool:
        return all(getattr(self, name) == getattr(scene, name) for name in names)


def judge(clip: torch.Tensor) -> Verdict:
    """Judge a clip (T, H, W, 3) in 0..1."""
    parts = Parts.of(clip)
    strength = stripe_amplitude(parts.white, parts.picture)
    style = strength > STRIPED, frame_brightness(parts.whole) > FRAMED
    if parts.empty():
        return Verdict(NOTHING, NOTHING, nearest(parts.background, BACKGROUNDS), NOTHING, NOTHING, *style, strength, (0.0, 0.0))
    track = Track.of(parts.alpha)
    moved = track.displacement() / parts.picture
    return Verdict(nearest(parts.colour, COLOURS), shape_of(parts.alpha, track), nearest(parts.background, BACKGROUNDS), direction_of(moved),
                   camera_of(track), *style, strength, (float(moved[0]), float(moved[1])))


@dataclass(frozen=True)
class Parts:
    """A clip taken apart: what it is inside the margin, the same without stripes, their white in each row, two colours, and the shape's coverage."""

    whole: Array
    inner: Array
    plain: Array
    white: Array
    background: Array
    colour: Array
    alpha: Array

    @staticmethod
    def of(clip: torch.Tensor) -> "Parts":
        whole = clip.detach().float().cpu().numpy().astype(np.float32)
        margin = round(MARGIN * whole.shape[1])
        inner = whole[:, margin:-margin, margin:-margin]
        plain, white = without_stripes(inner)
        background = np.median(plain.reshape(-1, 3), axis=0)
        return Parts(whole, inner, plain, white, background, *foreground(plain, background))

    @property
    def picture(self) -> int:
        """Height of the whole picture in pixels."""
        return self.whole.shape[1]

    def empty(self) -> bool:
        """Whether no shape is seen."""
        return bool(np.linalg.norm(self.colour - self.background) < SEEN or not (self.alpha > 0.5).any())


def nearest(colour: Array, table: dict[str, tuple[float, float, float]]) -> str:
    return min(table, key=lambda name: float(np.square(colour - np.array(table[name])).sum()))


def without_stripes(inner: Array) -> tuple[Array, Array]:
    """The clip with what was mixed with white, row by row, taken out again, and how much white was in each row (H,).

    The background's rows tell: their median over time and width does not see the shape.
    """
    rows = np.median(inner, axis=(0, 2))
    light = rows.mean(axis=1)
    dark = rows[light <= np.quantile(light, 0.3)].mean(axis=0)
    white = np.clip(((rows - dark) / (1 - dark)).mean(axis=1), 0, 0.8)
    return (inner - white[None, :, None, None]) / (1 - white)[None, :, None, None], white


def stripe_amplitude(white: Array, picture: int) -> float:
    """Strength of the stripes' own frequency in the rows' white, 0..0.25 for the stripes of the scenes."""
    phase = 2j * np.pi * STRIPES_PER_PICTURE * np.arange(len(white)) / picture
    return float(2 * abs(np.mean((white - white.mean()) * np.exp(phase))))


def frame_brightness(whole: Array) -> float:
    """How white the outermost pixels are: the median of their darkest channel."""
    sides = (whole[:, :2], whole[:, -2:], whole[:, :, :2], whole[:, :, -2:])
    return float(np.median(np.concatenate([side.reshape(-1, 3) for side in sides]).min(axis=1)))


def foreground(inner: Array, background: Array) -> tuple[Array, Array]:
    """Colour of the shape, and its coverage (T, H, W) in 0..1: the largest thing that hangs together in space and time."""
    distance = np.linalg.norm(inner - background, axis=-1)
    core = distance >= 0.75 * np.quantile(distance, 0.99)
    colour = np.median(inner[core], axis=0)
    difference = colour - background
    alpha = np.clip((inner - background) @ difference / max(1e-6, float(difference @ difference)), 0, 1)
    labels, count = ndimage.label(alpha > 0.5)
    if count > 1:
        largest = 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        alpha = alpha * ndimage.binary_dilation(labels == largest, iterations=2)
    return colour, np.where(alpha > 0.15, alpha, 0)


@dataclass(frozen=True)
class Track:
    """Centre (T, 2) as (x, y) in pixels and area (T,) in pixels of the shape, frame by frame; NaN where it is not seen."""

    centre: Array
    area: Array

    @staticmethod
    def of(alpha: Array) -> "Track":
        area = alpha.sum(axis=(1, 2))
        seen = np.where(area > 0.2 * np.median(area), area, np.nan)
        x, y = ((alpha * axis).sum(axis=(1, 2)) / seen for axis in np.meshgrid(np.arange(alpha.shape[2]), np.arange(alpha.shape[1])))
        return Track(np.stack([x, y], axis=1), seen)

    def displacement(self) -> Array:
        """Way (x, y) in pixels from the first to the last frame, from the straight line that fits best."""
        time, seen = np.arange(len(self.area)), np.isfinite(self.area)
        if seen.sum() < 3:
            return np.zeros(2)
        return np.polyfit(time[seen], self.centre[seen], 1)[0] * (len(time) - 1)


def direction_of(moved: Array) -> str:
    """The main direction of a displacement (x, y), in shares of the picture."""
    if np.linalg.norm(moved) < REST:
        return "still"
    if abs(moved[0]) > abs(moved[1]):
        return "right" if moved[0] > 0 else "left"
    return "down" if moved[1] > 0 else "up"


def camera_of(track: Track) -> str:
    """Whether the shape grows or shrinks from its first frames to its last."""
    seen = track.area[np.isfinite(track.area)]
    ends = max(1, len(seen) // 4)
    growth = seen[-ends:].mean() / seen[:ends].mean()
    return "zooms in" if growth > ZOOM else "zooms out" if growth < 1 / ZOOM else "static"


def shape_of(alpha: Array, track: Track) -> str:
    """The shape whose drawing, at the same area and around the same centre, is closest to the mean of all frames."""
    seen = canonical(alpha, track)
    return min(SHAPES, key=lambda shape: float(np.square(seen - TEMPLATES[shape]).sum()))


def canonical(alpha: Array, track: Track) -> Array:
    """Mean over the frames of the shape, moved to the middle and scaled to the area of a circle of radius 1: (CANVAS, CANVAS)."""
    grid = np.linspace(-REACH, REACH, CANVAS)
    frames = []
    for picture, (x, y), area in zip(alpha, track.centre, track.area, strict=True):
        if np.isfinite(area):
            radius = (area / np.pi) ** 0.5
            where = np.meshgrid(y + grid * radius, x + grid * radius, indexing="ij")
            frames.append(ndimage.map_coordinates(picture, where, order=1))
    return np.mean(frames, axis=0)


def _template(shape: str) -> Array:
    axis = torch.linspace(-3, 3, 600)
    drawn = (outline(shape, axis, axis[:, None]) < 0).numpy().astype(np.float32)
    track = Track.of(drawn[None])
    return ndimage.gaussian_filter(canonical(drawn[None], track), 1.0)


TEMPLATES = {shape: _template(shape) for shape in SHAPES}
