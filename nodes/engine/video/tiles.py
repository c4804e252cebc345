"""Cut a plane into overlapping tiles and blend them back without seams."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Window:
    """A tile of a latent plane: rows and columns from begin to end."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, plane: torch.Tensor) -> torch.Tensor:
        """The tile of a tensor (..., H, W)."""
        return plane[..., self.top : self.bottom, self.left : self.right]

    def scaled(self, scale: int) -> "Window":
        return Window(self.top * scale, self.bottom * scale, self.left * scale, self.right * scale)


def windows(height: int, width: int, tile: int, overlap: int) -> list[Window]:
    """Tiles of at most `tile` x `tile` that cover the plane, neighbours sharing at least `overlap`."""
    return [Window(top, bottom, left, right) for top, bottom in _spans(height, tile, overlap) for left, right in _spans(width, tile, overlap)]


def _spans(length: int, tile: int, overlap: int) -> Iterator[tuple[int, int]]:
    count = max(1, -(-(length - overlap) // (tile - overlap)))
    for index in range(count):
        begin = round(index * (length - tile) / (count - 1)) if count > 1 else 0
        yield begin, min(begin + tile, length)


def blend(tiles: list[tuple[Window, torch.Tensor]], height: int, width: int, overlap: int) -> torch.Tensor:
    """Tiles (..., h, w) put together to (..., height, width): in an overlap each fades out linearly as the other fades in."""
    first = tiles[0][1]
    plane, weights = first.new_zeros((*first.shape[:-2], height, width)), first.new_zeros((height, width))
    for window, picture in tiles:
        rows = _ramp(window.top, window.bottom, height, overlap).to(first)
        columns = _ramp(window.left, window.right, width, overlap).to(first)
        weight = rows[:, None] * columns
        window.of(plane).add_(picture * weight)
        window.of(weights).add_(weight)
    return plane.div_(weights)


def _ramp(begin: int, end: int, length: int, overlap: int) -> torch.Tensor:
    """Weight along one side: falls linearly over `overlap` towards a neighbour, stays 1 at the border of the plane."""
    place = torch.arange(begin, end) + 0.5
    rising = (place - begin) / overlap if begin > 0 else torch.ones(end - begin)
    falling = (end - place) / overlap if end < length else torch.ones(end - begin)
    return torch.minimum(rising, falling).clamp(max=1.0)
