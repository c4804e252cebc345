"""A clip as one small picture that moves and loops: animated WebP, which browsers play in an ordinary image."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

SIDE = 256  # pixels of the longer side, at most
MOST_BYTES = 224_000  # 300 kB as a data URL
QUALITIES = (70, 50, 30, 15)  # of WebP; tried until the picture is small enough
EFFORT = 2  # of 0 to 6: it is made while somebody waits


def moving_picture(frames: np.ndarray, seconds: float) -> bytes:
    """Animated WebP of frames (T, H, W, 3), uint8, that shows all of them in `seconds` and begins again; MOST_BYTES at most, for which every other
    frame is left out where no quality is low enough."""
    for some in fewer_and_fewer(frames):
        pictures = [Image.fromarray(frame) for frame in some]
        for quality in QUALITIES:
            made = _encoded(pictures, seconds, quality)
            if len(made) <= MOST_BYTES:
                return made
    raise ValueError(f"one frame of {frames.shape[2]}x{frames.shape[1]} takes more than {MOST_BYTES} bytes.")


def fewer_and_fewer(frames: np.ndarray) -> Iterator[np.ndarray]:
    while True:
        yield frames
        if len(frames) == 1:
            return
        frames = frames[::2]


def _encoded(pictures: list[Image.Image], seconds: float, quality: int) -> bytes:
    content = io.BytesIO()
    milliseconds = max(1, round(1000 * seconds / len(pictures)))
    pictures[0].save(content, "WEBP", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, quality=quality, method=EFFORT)
    return content.getvalue()


def small_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height of a picture of these proportions whose longer side is `side` pixels, or its own where that is less."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
