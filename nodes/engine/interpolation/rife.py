"""RIFE 4.x (Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame Interpolation"): every published version, from its shapes.

A coarse-to-fine chain of blocks estimates, for a moment t between two frames, where each pixel comes from in either frame, and which to trust.
"""

from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from .warp import Warped, interleave, pixel_grid, pixel_size, sample, without_bands

SLOPE = 0.2
LAYERS = 8  # convolutions in a block's trunk
RESCALE_ABOVE = 32  # pixels


class Trunk(Enum):
    """How the eight convolutions of a block are joined."""

    PRELU = "PReLU, one residual around all (4.0, 4.1)"
    LEAKY = "LeakyReLU, no residual (4.2 to 4.4)"
    RESIDUAL = "LeakyReLU, a weighted residual around each (from 4.5)"


@dataclass(frozen=True)
class RifeShape:
    """A RIFE version: channels and scale of each block, widths of the encoder's layers, and how the blocks are built.

    Two shapes are equal where their weights are: no weight tells the scales.
    """

    channels: tuple[int, ...]
    scales: tuple[int, ...] = field(compare=False)
    trunk: Trunk = Trunk.RESIDUAL
    encoder: tuple[int, ...] = ()
    outputs: int = 6
    groups: int = 1

    @property
    def features(self) -> int:
        """Channels that the encoder adds to each frame."""
        return self.encoder[-1] if self.encoder else 0

    @property
    def passed_on(self) -> int:
        """Feature channels that a block hands to the next (from 4.21)."""
        return 8 if self.outputs > 6 else 0

    @property
    def summed(self) -> int:
        """Channels that the blocks add up: flow (2 + 2), and before 4.7 the mask, which later blocks replace."""
        return 4 if self.encoder else 5

    @property
    def used_outputs(self) -> tuple[int, ...]:
        """Output channels of each block that something reads: flow, mask and, but for the last block, what is passed on."""
        return (*(5 + self.passed_on for _ in self.channels[1:]), 5)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Input channels of each block: frames, their features and t; later ones also the mask, what is passed on, and the flow."""
        first = 2 * (3 + self.features) + 1
        return (first, *(first + 1 + self.passed_on + 4 for _ in self.channels[1:]))

    @property
    def step(self) -> int:
        """How much smaller a block's output is than its input: before 4.5 there was no PixelShuffle."""
        return 1 if self.trunk is Trunk.RESIDUAL else 2

    @property
    def rescales(self) -> bool:
        """4.0 and 4.1 begin anew at doubled scales when they meet large motion."""
        return self.trunk is Trunk.PRELU


class Encoder(nn.Module):
    """A few convolutions at half size: the features of one frame."""

    def __init__(self, widths: tuple[int, ...], operations: Any) -> None:
        super().__init__()
        self.cnn0 = operations.Conv2d(3, widths[0], 3, 2, 1)
        for index in range(1, len(widths) - 1):
            self.add_module(f"cnn{index}", operations.Conv2d(widths[index - 1], widths[index], 3, 1, 1))
        self.add_module(f"cnn{len(widths) - 1}", operations.ConvTranspose2d(widths[-2], widths[-1], 4, 2, 1))
        self.activated = len(widths) > 2

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        *convolutions, last = self.children()
        for convolution in convolutions:
            image = convolution(image)
            if self.activated:
                image = F.leaky_relu_(image, SLOPE)
        return last(image)


class PReLU(nn.PReLU):
    """Its slopes follow the image: ComfyUI moves and casts layers, of which this is none."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.prelu(x, self.weight.to(x.device))


class ResidualConvolution(nn.Module):
    def __init__(self, channels: int, groups: int, operations: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, 1, 1, groups=groups)
        self.beta = nn.Parameter(torch.ones(1, channels, 1, 1), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu_(self.conv(x).mul_(self.beta.to(x.device)).add_(x), SLOPE)  # ComfyUI moves layers, not lone parameters


class Block(nn.Module):
    """One step of refinement: flow both ways, mask and what is passed on, at the size of its input (before 4.5 at half of it)."""

    def __init__(self, inputs: int, channels: int, outputs: int, shape: RifeShape, operations: Any) -> None:
        super().__init__()

        def convolution(before: int, after: int, stride: int) -> nn.Module:
            activation = PReLU(after) if shape.trunk is Trunk.PRELU else nn.LeakyReLU(SLOPE, inplace=True)
            return nn.Sequential(operations.Conv2d(before, after, 3, stride, 1), activation)

        residual = shape.trunk is Trunk.RESIDUAL
        self.conv0 = nn.Sequential(convolution(inputs, channels // 2, 2), convolution(channels // 2, channels, 2))
        self.convblock = nn.Sequential(*(ResidualConvolution(channels, shape.groups, operations) if residual else convolution(channels, channels, 1)
                                         for _ in range(LAYERS)))
        last = operations.ConvTranspose2d(channels, outputs * 4 if residual else outputs, 4, 2, 1)
        self.lastconv = nn.Sequential(last, nn.PixelShuffle(2)) if residual else last
        self.around = shape.trunk is Trunk.PRELU

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv0(x)
        return self.lastconv(self.convblock(x) + x if self.around else self.convblock(x))


@dataclass(frozen=True)
class Pair:
    """What two frames have in common at every t: both (1, 3 + features, H, W), and where their pixels lie (1, 4, H, W)."""

    first: torch.Tensor
    second: torch.Tensor
    grid: torch.Tensor
    pixel: torch.Tensor


@dataclass(frozen=True)
class Estimate:
    """What is known after a block: motion (n, 4, H, W), the flow to both frames in pixels; mask (the first frame's weight before the
    sigmoid) and features (n, C, H / scale, W / scale) as the latest block has them. Before 4.7 the mask is summed up, a fifth channel of motion."""

    motion: torch.Tensor
    latest: torch.Tensor
    scale: int


class Rife(nn.Module):
    """Frames at any t, several at once; sides must be multiples of `multiple`."""

    recursive: frozenset[int] = frozenset()
    values_per_pixel = 300  # measured with 4.26: 0.45 GB more at 832x480 in float32

    def __init__(self, shape: RifeShape, operations: Any) -> None:
        super().__init__()
        self.shape = shape
        self.multiple = 4 * max(shape.scales) * (2 if shape.rescales else 1)
        sizes = zip(shape.inputs, shape.channels, shape.used_outputs, strict=True)
        self.blocks = nn.ModuleList(Block(*size, shape, operations) for size in sizes)
        if shape.encoder:
            self.encode = Encoder(shape.encoder, operations)

    def features(self, frame: torch.Tensor) -> torch.Tensor:
        """A frame (1, 3, H, W) in 0..1 with its features: (1, 3 + features, H, W), float32 as the sampler reads it."""
        frame = frame.clamp(0, 1)
        if not self.shape.encoder:
            return frame.float()
        return torch.cat((frame, self.encode(frame.contiguous(memory_format=torch.channels_last))), 1).float().contiguous()

    def pair(self, first: torch.Tensor, second: torch.Tensor) -> Pair:
        grid = pixel_grid(first)
        return Pair(first, second, torch.cat((grid, grid), 1), pixel_size(grid).repeat(1, 2, 1, 1))

    def between(self, pair: Pair, timesteps: torch.Tensor) -> Warped:
        """The frames at `timesteps` (n), each in 0..1: (n, 3, H, W) and both warped frames."""
        if self.shape.rescales and len(timesteps) > 1:
            parts = [self.between(pair, t) for t in timesteps.split(1)]
            return Warped(*(torch.cat([getattr(part, name) for part in parts]) for name in ("frames", "first", "second")))
        estimate = self._estimate(pair, timesteps, self.shape.scales)
        target = torch.addcmul(pair.grid, estimate.motion[:, :4], pair.pixel)
        first, second = (without_bands(sample(source[:, :3], target[:, at : at + 2])) for source, at in ((pair.first, 0), (pair.second, 2)))
        mask = estimate.motion[:, 4:] if self.shape.summed == 5 else resize(estimate.latest[:, :1].float(), estimate.scale)
        return Warped(torch.lerp(second, first, torch.sigmoid(mask)), first, second)

    def _estimate(self, pair: Pair, timesteps: torch.Tensor, scales: tuple[int, ...]) -> Estimate:
        estimate: Estimate | None = None
        for index, (block, scale) in enumerate(zip(self.blocks, scales, strict=True)):
            x = self._first_input(pair, timesteps, scale) if estimate is None else self._input(pair, timesteps, estimate, scale)
            update = self._read(block(x), scale * self.shape.step)
            if index == 1 and self.shape.rescales and scales == self.shape.scales and _is_large(update.motion):
                return self._estimate(pair, timesteps, tuple(2 * scale for scale in scales))
            estimate = update if estimate is None else replace(update, motion=estimate.motion.add_(update.motion))
        assert estimate is not None
        return estimate

    def _read(self, output: torch.Tensor, scale: int) -> Estimate:
        summed = output[:, : self.shape.summed].to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        summed[:, :4] *= scale
        return Estimate(resize(summed, scale), output[:, self.shape.summed :], scale)

    def _first_input(self, pair: Pair, timesteps: torch.Tensor, scale: int) -> torch.Tensor:
        """Both frames with their features, and t: (n, inputs, H / scale, W / scale)."""
        return self._joined(shrink(pair.first, scale), shrink(pair.second, scale), timesteps, ())

    def _input(self, pair: Pair, timesteps: torch.Tensor, estimate: Estimate, scale: int) -> torch.Tensor:
        """The same of the warped frames, then mask, what is passed on, and flow.

        Shrinking reads an image in the middle of each cell only, so it is warped only there; and enlarging to full size,
        then shrinking, is the same as enlarging that far at once.
        """
        target = middles(torch.addcmul(pair.grid, estimate.motion[:, :4], pair.pixel), scale)
        first, second = (halve(sample(source, target[:, at : at + 2]), scale) for source, at in ((pair.first, 0), (pair.second, 2)))
        small, latest = shrink(estimate.motion, scale), resize(estimate.latest, estimate.scale // scale)
        return self._joined(first, second, timesteps, (small[:, 4:], latest, small[:, :4] / scale))

    def _joined(self, first: torch.Tensor, second: torch.Tensor, timesteps: torch.Tensor, rest: tuple[torch.Tensor, ...]) -> torch.Tensor:
        parts = (first[:, :3], second[:, :3], first[:, 3:], second[:, 3:], timesteps.view(-1, 1, 1, 1), *rest)
        channels = sum(part.shape[1] for part in parts)
        return interleave((part for part in parts if part.shape[1]), len(timesteps), channels, next(self.parameters()).dtype)


def resize(image: torch.Tensor, factor: float) -> torch.Tensor:
    """Bilinear, between the centres of cells."""
    return image if factor == 1 or image.shape[1] == 0 else F.interpolate(image, scale_factor=factor, mode="bilinear")


def shrink(image: torch.Tensor, scale: int) -> torch.Tensor:
    return resize(image, 1 / scale)


def middles(image: torch.Tensor, scale: int) -> torch.Tensor:
    """The 2 x 2 pixels in the middle of each cell of `scale` x `scale`: (n, C, H, W) to (n, C, 2 H / scale, 2 W / scale)."""
    if scale <= 2:
        return image
    cells = rearrange(image, "n c (rows y) (columns x) -> n c rows y columns x", y=scale, x=scale)
    middle = slice(scale // 2 - 1, scale // 2 + 1)
    return rearrange(cells[..., middle, :, middle], "n c rows y columns x -> n c (rows y) (columns x)")


def halve(bands: torch.Tensor, scale: int) -> torch.Tensor:
    """Means of 2 x 2 pixels, in bands of rows (n, C, bands, rows, W); unchanged where `scale` is 1."""
    if scale == 1:
        return bands
    halved = resize(rearrange(bands, "n c bands rows w -> (n bands) c rows w"), 0.5)
    return rearrange(halved, "(n bands) c rows w -> n c bands rows w", bands=bands.shape[2])


def _is_large(update: torch.Tensor) -> bool:
    return all(bool(update[:, at : at + 2].abs().max() > RESCALE_ABOVE) for at in (0, 2))
