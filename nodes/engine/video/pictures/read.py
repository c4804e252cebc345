"""Read written pictures back as a stream: one at a time, whatever their number."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence

from .. import read
from ..formats import ANIMATIONS


def frames(path: Path) -> Iterator[torch.Tensor]:
    """Chunks (T, H, W, 3) in 0..1 of an animation, or of the pictures of a folder in the order of their names."""
    if path.suffix.removeprefix(".") in ANIMATIONS:
        yield from _animation(path)
    else:
        for picture in sorted(path.iterdir()):
            yield from read.frames(str(picture))


def _animation(path: Path) -> Iterator[torch.Tensor]:
    """FFmpeg reads no animated WebP."""
    with Image.open(path) as animation:
        for frame in ImageSequence.Iterator(animation):
            yield torch.from_numpy(np.asarray(frame.convert("RGB"), np.float32)[None] / 255)
