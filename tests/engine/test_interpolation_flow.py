"""Optical flow: what moves is where it should be, nothing ghosts, both directions of time agree, and memory does not grow with the clip."""

import tracemalloc

import cv2
import numpy as np
import pytest
import torch

from engine.interpolation.flow import OpticalFlow
from engine.interpolation.stream import Interpolator, interpolate

HEIGHT, WIDTH, RADIUS = 96, 160, 24


def run(clip: torch.Tensor, new_frames: int, scene_cut: float | None = 0.5) -> torch.Tensor:
    return torch.cat(list(interpolate(iter(clip.split(1)), new_frames, Interpolator(OpticalFlow(), torch.device("cpu")), scene_cut)))


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """A picture (H, W, 3) in 0..1 with large and small shapes, as photographs have."""
    random = np.random.default_rng(seed)
    coarse = ((cell, random.random((height // cell + 3, width // cell + 3, 3), dtype=np.float32) - 0.5) for cell in (64, 32, 16, 8))
    return np.clip(0.5 + sum(cell / 96 * cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) for cell, noise in coarse), 0, 1)


def panned(offsets: list[float]) -> torch.Tensor:
    """A camera that moves over a picture, to the right by `offsets` pixels."""
    picture = texture(HEIGHT, 2 * WIDTH, 1)
    return torch.stack([torch.from_numpy(cv2.getRectSubPix(picture, (WIDTH, HEIGHT), (WIDTH + x, HEIGHT / 2 - 0.5))) for x in offsets])


def disc(x: int) -> torch.Tensor:
    """Where a disc is, (H, W), 1 inside."""
    return torch.from_numpy(cv2.circle(np.zeros((HEIGHT, WIDTH), np.float32), (50 + x, 48), RADIUS, 1.0, -1))


def crossed(offsets: list[int]) -> torch.Tensor:
    """A disc with a picture of its own moves to the right before a picture that stands still."""
    behind, before = torch.from_numpy(texture(HEIGHT, WIDTH, 2)), torch.from_numpy(texture(HEIGHT, WIDTH, 3))
    return torch.stack([torch.where(disc(x)[..., None] > 0, before.roll(x, 1), behind) for x in offsets])


def error(made: torch.Tensor, truth: torch.Tensor, where: torch.Tensor | None = None) -> float:
    squares = (made - truth).square().mean(-1)
    return float((squares if where is None else squares[where]).mean().sqrt())


@pytest.mark.parametrize("new_frames", [1, 2, 3, 4])
def test_what_moves_is_part_of_its_way_on(new_frames: int) -> None:
    """Inside, that is: at the borders something comes into the picture that only one frame shows."""
    shift, inside = 12.0, slice(16, -16)
    truth = panned([shift * index / (new_frames + 1) for index in range(new_frames + 2)])
    made = run(truth[[0, -1]], new_frames)
    assert made.shape == truth.shape
    blend = torch.lerp(truth[0], truth[-1], torch.linspace(0, 1, new_frames + 2).view(-1, 1, 1, 1))
    for index in range(1, new_frames + 1):
        ours, mixed = (error(frames[index, :, inside], truth[index, :, inside]) for frames in (made, blend))
        assert ours < 0.01 and ours < mixed / 5, (index, ours, mixed)


def test_what_is_uncovered_shows_no_ghost_of_what_covered_it() -> None:
    clip = crossed([0, 8, 16])
    made, ghost = run(clip[::2], 1)[1], (clip[0] + clip[2]) / 2
    once = (disc(0) + disc(16) == 1) & (disc(8) == 0)
    assert error(made, clip[1], once) < error(ghost, clip[1], once) / 2


def test_backwards_the_same_frames_come_in_the_other_order() -> None:
    clip = crossed([0, 10, 16])
    torch.testing.assert_close(run(clip.flip(0), 2).flip(0), run(clip, 2), atol=1e-4, rtol=0)


def test_at_a_cut_the_frame_before_it_stays() -> None:
    first, second = (torch.from_numpy(texture(HEIGHT, WIDTH, seed)) for seed in (4, 5))
    made = run(torch.stack([first, first, second, second]), 2)
    assert torch.equal(made[3:6], first.expand(3, -1, -1, -1))
    torch.testing.assert_close(made[6:], second.expand(4, -1, -1, -1), atol=1e-5, rtol=0)


def test_a_frame_on_another_type_of_number_is_read() -> None:
    clip = panned([0, 4])
    half = run(clip.half(), 1)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), run(clip, 1), atol=0.01, rtol=0)


def test_a_long_clip_takes_no_more_memory_than_a_short_one() -> None:
    peaks = []
    for count in (17, 161):
        clip = torch.rand(count, 64, 96, 3).split(1)
        tracemalloc.start()
        for _ in interpolate(iter(clip), 1, Interpolator(OpticalFlow(), torch.device("cpu"))):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
