"""Backward warping: reading an image at positions that a flow field points to, by bilinear interpolation, clamped at the borders."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange

BANDS = 16  # most that one image is cut into


@dataclass(frozen=True)
class Warped:
    """New frames (n, 3, H, W) and the two given frames as they were bent to those moments, each (n, 3, H, W)."""

    frames: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor


def pixel_grid(image: torch.Tensor) -> torch.Tensor:
    """Where each pixel lies in grid_sample's coordinates, -1..1 from the first pixel's centre to the last's: (1, 2, H, W), x before y."""
    height, width = image.shape[-2:]
    x = torch.linspace(-1, 1, width, device=image.device).expand(height, width)
    y = torch.linspace(-1, 1, height, device=image.device).unsqueeze(1).expand(height, width)
    return torch.stack((x, y)).unsqueeze(0)


def pixel_size(grid: torch.Tensor) -> torch.Tensor:
    """One pixel in the grid's coordinates: (1, 2, 1, 1)."""
    height, width = grid.shape[-2:]
    return torch.tensor([2 / max(width - 1, 1), 2 / max(height - 1, 1)], device=grid.device).view(1, 2, 1, 1)


def sample(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The image (1, C, H, W) read at `target` (n, 2, h, w), in bands of rows: (n, C, bands, h / bands, w), float32.

    PyTorch's sampler uses one CPU thread per batch entry, so there the rows are shared out as a batch; elsewhere it is one band.
    """
    bands = math.gcd(target.shape[2] // 2, BANDS) if target.device.type == "cpu" else 1
    positions = rearrange(target, "n xy (bands rows) w -> (n bands) rows w xy", bands=bands)
    read = F.grid_sample(image.expand(len(positions), -1, -1, -1), positions, mode="bilinear", padding_mode="border", align_corners=True)
    return rearrange(read, "(n bands) c rows w -> n c bands rows w", bands=bands)


def without_bands(image: torch.Tensor) -> torch.Tensor:
    """What `sample` returned, as one image again: (n, C, H, W)."""
    return rearrange(image, "n c bands rows w -> n c (bands rows) w")


def interleave(parts: Iterable[torch.Tensor], count: int, channels: int, dtype: torch.dtype) -> torch.Tensor:
    """The channels of all parts as one image in channels-last order, which CPU and GPU convolve fastest: (count, channels, H, W).

    Parts are (count or 1, C, H, W), or in bands of rows; the first one has the full size, others may be (count, C, 1, 1). Each is asked for
    when its turn comes, so that a generator holds one at a time.
    """
    whole: torch.Tensor | None = None
    at = 0
    for part in parts:
        if whole is None:
            height, width = part.shape[2:-1].numel(), part.shape[-1]
            whole = torch.empty(count, channels, height, width, dtype=dtype, device=part.device, memory_format=torch.channels_last)
        slot = whole[:, at : at + part.shape[1]]
        (slot.unflatten(2, part.shape[2:4]) if part.dim() == 5 else slot).copy_(part)
        at += part.shape[1]
        del part  # else it lives on while the next one is computed
    assert whole is not None and at == channels
    return whole
