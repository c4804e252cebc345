"""Whether FILM as it is built here can learn what it is for: a small one, which starts as the mean of both frames, learns to move pictures half-way.

    python dev.py bench film_training

Its weights are published, its training is not; this shows that nothing in its layers or warps stands in the way. Errors beside those of blending.
"""

import sys
from typing import Any

import torch
import torch.nn.functional as F

import interpolation_oracles as oracles
import precision
from engine.interpolation.film import Film
from engine.interpolation.film_files import from_published, published_names, shape_of

SMALL, SMALL_WIDTHS = 8, (4, 8, 16, 32)
STEPS, CLIPS = 180, 6


def main() -> int:
    torch.set_num_threads(1)  # tiny layers only lose time to threads
    with precision.float64():
        moved, unmoved = errors()
    print(f"error of the frame half-way: {moved:.2f} of blending's (wanted below 0.5); between equal frames {unmoved:.2f} (wanted below 0.75)")
    return int(moved >= 0.5 or unmoved >= 0.75)


def errors() -> tuple[float, float]:
    """After training: of frames half-way, and of frames between equal ones, in those of blending."""
    network = untrained(4, (4, 8, 16, 16))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        first, half_way, second = moving(generator)
        optimizer.zero_grad()
        error(middle_of(network, first, second), half_way).backward()
        optimizer.step()
    with torch.no_grad():
        clips = [moving(generator) for _ in range(CLIPS)]
        made = sum(float(error(middle_of(network, first, second), half_way)) for first, half_way, second in clips)
        blended = sum(float(error((first + second) / 2, half_way)) for first, half_way, second in clips)
        unmoved = sum(float(error(middle_of(network, first, first), first)) for first, _, _ in clips)
    return made / blended, unmoved / blended


def small_film(filters: int = SMALL, widths: tuple[int, ...] = SMALL_WIDTHS) -> Film:
    named = published_names(oracles.film_weights(filters, widths))
    shape = shape_of(named)
    network = Film(shape, torch.nn)
    network.load_state_dict(from_published(named, shape))
    return network.eval()


@torch.no_grad()
def untrained(filters: int, widths: tuple[int, ...]) -> Film:
    """A small network that starts as the mean of both warped frames, with little flow: training has to find the flow."""
    network: Any = small_film(filters=filters, widths=widths)
    finest = network.fuse[0]
    for layer in (finest.mix, finest.last, network.output):
        layer.weight.zero_()
        layer.bias.zero_()
    for colour in range(3):
        finest.mix.weight[colour, (colour, 3 + filters + colour), 1, 1] = 0.5
        finest.last.weight[colour, colour, 1, 1] = network.output.weight[colour, colour, 0, 0] = 1
    for predictor in network.predict:
        predictor.flow.weight.mul_(0.1)
    return network


def moving(generator: torch.Generator, side: int = 64, step: int = 4) -> tuple[torch.Tensor, ...]:
    """A random smooth picture before, half-way through and after a move of 8 pixels to the left or to the right."""
    coarse = torch.rand(1, 3, side // 8 + 4, side // 8 + 4, generator=generator)
    wide = F.interpolate(coarse, side + 2 * step, mode="bicubic").clamp(0, 1)[:, :, step:-step]
    direction = 1 if torch.rand((), generator=generator) < 0.5 else -1
    return tuple(wide[..., step + when * direction * step :][..., :side] for when in (-1, 0, 1))


def middle_of(network: Film, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return network.between(network.pair(network.features(first), network.features(second)), torch.tensor([0.5])).frames


def error(picture: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (picture - expected).abs().mean()


if __name__ == "__main__":
    sys.exit(main())
