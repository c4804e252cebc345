"""FILM (Reda et al., "FILM: Frame Interpolation for Large Motion", film_net): one network for any size, built from its weights' shapes.

Features of an image pyramid, shared by all scales; flow between two frames from coarse to fine; both frames and their features warped to the
moment t and fused by a U-Net's decoder. It was trained at t = 0.5; other moments scale the flow.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from .warp import Warped, interleave, pixel_grid, pixel_size, sample, without_bands

LEVELS = 7  # of the image pyramid: halving six times, hence sides in multiples of 64
SLOPE = 0.2  # LeakyReLU


@dataclass(frozen=True)
class FilmShape:
    """Channels: of the finest features (they double at each of `depth` levels), and of the flow predictors from the finest level on."""

    filters: int
    predictors: tuple[int, ...]
    depth: int = 4

    def features(self, level: int) -> int:
        """Channels at a level: what each finer image's extractor says about this size."""
        return sum(self.filters << step for step in range(min(level + 1, self.depth)))

    def fused(self, level: int) -> int:
        """Channels that the decoder has at a level; at the coarsest, all that it is given."""
        return self.filters << min(level, self.depth - 1) if level < self.depth else self.aligned(level)

    def aligned(self, level: int) -> int:
        """Channels of both warped images with features and both flows."""
        return 2 * (3 + self.features(min(level, self.depth - 1)) + 2)


def convolution(before: int, after: int, size: int, operations: Any, **options: bool) -> nn.Module:
    return operations.Conv2d(before, after, size, padding=size // 2, **options)


class Extractor(nn.Module):
    """Two convolutions per level, at ever smaller sizes of one image; the same for each image of the pyramid."""

    def __init__(self, shape: FilmShape, operations: Any) -> None:
        super().__init__()
        widths = [shape.filters << step for step in range(shape.depth)]
        self.levels = nn.ModuleList(
            nn.Sequential(convolution(before, after, 3, operations), nn.LeakyReLU(SLOPE, True),
                          convolution(after, after, 3, operations), nn.LeakyReLU(SLOPE, True))
            for before, after in zip((3, *widths), widths, strict=False))

    def forward(self, image: torch.Tensor, depth: int) -> list[torch.Tensor]:
        outputs: list[torch.Tensor] = []
        for level in self.levels[:depth]:
            outputs.append(level(F.avg_pool2d(outputs[-1], 2) if outputs else image))
        return outputs


class Predictor(nn.Module):
    """Flow from one frame's features to another's; the first layer is in two halves, so that a frame's own half is computed once."""

    def __init__(self, features: int, width: int, operations: Any) -> None:
        super().__init__()
        self.own = convolution(features, width, 3, operations)
        self.other = convolution(features, width, 3, operations, bias=False)
        self.hidden = nn.ModuleList((convolution(width, width, 3, operations), convolution(width, width, 3, operations),
                                     convolution(width, width // 2, 1, operations)))
        self.flow = convolution(width // 2, 2, 1, operations)

    def forward(self, own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        x = activate(self.other(other).add_(own))
        for layer in self.hidden:
            x = activate(layer(x))
        return self.flow(x)


class Fusion(nn.Module):
    """One level of the decoder: `up` is nearest doubling and a 2 x 2 convolution in one."""

    def __init__(self, shape: FilmShape, level: int, operations: Any) -> None:
        super().__init__()
        width = shape.fused(level)
        self.up = operations.ConvTranspose2d(shape.fused(level + 1), width, 3, 2, 1, output_padding=1)
        self.channels = shape.aligned(level) + width
        self.mix = convolution(self.channels, width, 3, operations)
        self.last = convolution(width, width, 3, operations)

    def forward(self, x: torch.Tensor, aligned: Iterator[torch.Tensor]) -> torch.Tensor:
        parts = chain(aligned, (up(x) for up in (self.up,)))
        x = activate(self.mix(interleave(parts, len(x), self.channels, x.dtype)))
        return activate(self.last(x))


@dataclass(frozen=True)
class Frame:
    """What is known of one frame, finest level first: images, features, and its half of the flow predictors' first layer.

    That half is left out at the finest level, where it would be a fifth of all that is kept and is one hundredth of the work.
    """

    images: tuple[torch.Tensor, ...]
    features: tuple[torch.Tensor, ...]
    own: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Flows:
    """Two frames and the flow between them in pixels, (1, 2, h, w) at each level, finest first."""

    first: Frame
    second: Frame
    to_first: tuple[torch.Tensor, ...]
    to_second: tuple[torch.Tensor, ...]
    grids: tuple[torch.Tensor, ...]

    def aligned(self, level: int, first: torch.Tensor, second: torch.Tensor, to_first: torch.Tensor,
                to_second: torch.Tensor) -> Iterator[torch.Tensor]:
        """What the decoder is given at a level: both warped images, each with its warped features, and both flows."""
        yield first
        yield follow(self.first.features[level], to_first, self.grids[level])
        yield second
        yield follow(self.second.features[level], to_second, self.grids[level])
        yield to_first
        yield to_second


class Film(nn.Module):
    """Frames at any t, several at once; sides must be multiples of `multiple`."""

    recursive = frozenset({1, 3})  # numbers of new frames that halving reaches, so that every step is the t = 0.5 of the training
    multiple = 2 ** (LEVELS - 1)
    values_per_pixel = 900  # measured: 1.4 GB more at 832x480 in float32

    def __init__(self, shape: FilmShape, operations: Any) -> None:
        super().__init__()
        self.shape = shape
        self.extract = Extractor(shape, operations)
        self.predict = nn.ModuleList(Predictor(shape.features(level), width, operations) for level, width in enumerate(shape.predictors))
        self.fuse = nn.ModuleList(Fusion(shape, level, operations) for level in range(shape.depth))
        self.output = convolution(shape.filters, 3, 1, operations)

    def features(self, frame: torch.Tensor) -> Frame:
        """A frame (1, 3, H, W) in 0..1 with its pyramids; the third of the work that needs only one frame."""
        images = [frame.contiguous(memory_format=torch.channels_last)]
        while len(images) < LEVELS:
            images.append(F.avg_pool2d(images[-1], 2))
        trees = [self.extract(image, min(LEVELS - level, self.shape.depth)) for level, image in enumerate(images)]
        features = [trees[0][0]]
        for level in range(1, LEVELS):
            features.append(torch.cat([trees[level - step][step] for step in range(min(level + 1, self.shape.depth))], 1))
        return Frame(tuple(images), tuple(features), tuple(self._predictor(level).own(features[level]) for level in range(1, LEVELS)))

    def pair(self, first: Frame, second: Frame) -> Flows:
        grids = tuple(pixel_grid(image) for image in first.images)
        return Flows(first, second, self._flow(second, first, grids), self._flow(first, second, grids), grids)

    def between(self, pair: Flows, timesteps: torch.Tensor) -> Warped:
        """The frames at `timesteps` (n), each in 0..1: (n, 3, H, W) and both warped frames."""
        t = timesteps.view(-1, 1, 1, 1)
        x: torch.Tensor | None = None
        for level in range(self.shape.depth, -1, -1):
            to_first, to_second = pair.to_first[level] * t, pair.to_second[level] * (1 - t)
            first = follow(pair.first.images[level], to_first, pair.grids[level])
            second = follow(pair.second.images[level], to_second, pair.grids[level])
            aligned = pair.aligned(level, first, second, to_first, to_second)
            x = interleave(aligned, len(t), self.shape.aligned(level), pair.first.features[0].dtype) if x is None else self.fuse[level](x, aligned)
        return Warped(self.output(x), without_bands(first), without_bands(second))

    def _predictor(self, level: int) -> Predictor:
        return cast(Predictor, self.predict[min(level, len(self.predict) - 1)])

    def _flow(self, here: Frame, there: Frame, grids: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Where each pixel of one frame lies in another, in pixels, refined from the coarsest level to the finest."""
        flows: list[torch.Tensor] = []
        for level in range(LEVELS - 1, -1, -1):
            features = there.features[level]
            if flows:
                coarse = F.interpolate(flows[0], scale_factor=2, mode="bilinear").mul(2)
                features = interleave([follow(features, coarse, grids[level])], 1, features.shape[1], features.dtype)
            predictor = self._predictor(level)
            update = predictor(here.own[level - 1] if level else predictor.own(here.features[0]), features).float()
            flows.insert(0, coarse + update if flows else update)
        return tuple(flows)


def follow(image: torch.Tensor, flow: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """The image read where `flow` (n, 2, H, W), in pixels, points to: in bands of rows, (n, C, bands, rows, W)."""
    return sample(image.float(), torch.addcmul(grid, flow, pixel_size(grid)))


def activate(x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu_(x, SLOPE)
