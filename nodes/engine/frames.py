"""Frame-stream vocabulary: a clip is an iterator of chunks, each a float tensor (T, H, W, C) with RGB in 0..1."""

from collections.abc import Iterator

import numpy as np
import torch

CHUNK = 8


def chunks(frames: torch.Tensor, size: int = CHUNK, reverse: bool = False) -> Iterator[torch.Tensor]:
    """Cut frames (T, H, W, C) into chunks of at most `size` frames, last frame first when `reverse`."""
    starts = range(0, len(frames), size)
    for start in reversed(starts) if reverse else starts:
        chunk = frames[start : start + size]
        yield chunk.flip(0) if reverse else chunk


def to_rgb24(chunk: torch.Tensor) -> np.ndarray:
    """Round float RGB 0..1 to uint8 0..255 on the device where the frames are; (T, H, W, 3), alpha dropped."""
    levels = chunk[..., :3].float().clamp(0, 1).mul(255).round()
    return levels.to(device="cpu", dtype=torch.uint8).numpy()
