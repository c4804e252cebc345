"""Originals survive interpolation; counts, moments and cuts come out right; features are computed once per frame."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import interpolation_oracles as oracles
from engine.interpolation.checkpoints import detect
from engine.interpolation.film import Film, FilmShape
from engine.interpolation.flow import OpticalFlow
from engine.interpolation.scenes import similarity
from engine.interpolation.stream import Interpolator, Network, interpolate
from engine.interpolation.warp import Warped


class OutOfMemory(Exception):
    pass


class Blend:
    """A network that mixes two frames, and counts what is asked of it."""

    def __init__(self, recursive: tuple[int, ...] = (), fits: int = 4) -> None:
        self.multiple, self.recursive, self.fits = 32, frozenset(recursive), fits
        self.seen: list[torch.Size] = []
        self.pairs = 0
        self.batches: list[int] = []

    def features(self, frame: torch.Tensor) -> torch.Tensor:
        self.seen.append(frame.shape)
        return frame

    def pair(self, first: torch.Tensor, second: torch.Tensor) -> Any:
        self.pairs += 1
        return SimpleNamespace(first=first, second=second)

    def between(self, pair: Any, timesteps: torch.Tensor) -> Warped:
        if len(timesteps) > self.fits:
            raise OutOfMemory
        self.batches.append(len(timesteps))
        mixed = torch.lerp(pair.first, pair.second, timesteps.view(-1, 1, 1, 1))
        return Warped(mixed, mixed, mixed)


def run(network: Network, clip: torch.Tensor, new_frames: int, chunk: int = 3, batch: int = 4, **options: Any) -> torch.Tensor:
    interpolator = Interpolator(network, torch.device("cpu"), timestep_batch=batch, is_out_of_memory=lambda error: isinstance(error, OutOfMemory))
    return torch.cat(list(interpolate(iter(clip.split(chunk)), new_frames, interpolator, **options)))


def film(seed: int = 0) -> Film:
    torch.manual_seed(seed)
    return Film(FilmShape(4, (4, 4, 4, 4)), torch.nn).eval()


def rife() -> Any:
    return detect(oracles.rife("4.6").state_dict()).network(torch.nn)


@pytest.mark.parametrize("new_frames", range(5))
@pytest.mark.parametrize("count", [1, 2, 7])
def test_n_frames_become_n_minus_1_times_k_plus_1_plus_1_and_originals_are_bit_identical(new_frames: int, count: int) -> None:
    clip = torch.rand(count, 33, 47, 3)
    made = run(Blend(), clip, new_frames)
    assert made.shape == ((count - 1) * (new_frames + 1) + 1, 33, 47, 3)
    assert torch.equal(made[:: new_frames + 1], clip)


@pytest.mark.parametrize("recursive", [(), (1, 3)])
@pytest.mark.parametrize("new_frames", [1, 2, 3, 4])
def test_new_frames_are_evenly_spaced_in_time(new_frames: int, recursive: tuple[int, ...]) -> None:
    clip = torch.stack((torch.zeros(32, 32, 3), torch.ones(32, 32, 3)))
    made = run(Blend(recursive), clip, new_frames)
    torch.testing.assert_close(made[:, 5, 5, 1], torch.linspace(0, 1, new_frames + 2))


def test_features_are_computed_once_per_frame_and_flow_once_per_pair() -> None:
    network = Blend()
    run(network, torch.rand(6, 32, 32, 3), 4)
    assert len(network.seen) == 6
    assert network.pairs == 5


def test_recursion_adds_features_of_the_middle_frame_only() -> None:
    network = Blend(recursive=(1, 3))
    run(network, torch.rand(3, 32, 32, 3), 3)
    assert len(network.seen) == 3 + 2
    assert network.pairs == 2 * 3


def test_frames_are_padded_to_the_multiple_with_their_border() -> None:
    network = Blend()
    run(network, torch.rand(2, 33, 64, 3), 1)
    assert network.seen == [(1, 3, 64, 64)] * 2


def test_out_of_memory_halves_the_batch_for_the_rest_of_the_clip() -> None:
    network = Blend(fits=1)
    clip = torch.rand(3, 32, 32, 3)
    assert torch.equal(run(network, clip, 4), run(Blend(), clip, 4))
    assert network.batches == [1] * 8
    tight = Blend(fits=3)
    run(tight, clip, 4)
    assert tight.batches == [2, 2, 2, 2]


def test_out_of_memory_with_a_single_moment_is_the_callers() -> None:
    with pytest.raises(OutOfMemory):
        run(Blend(fits=0), torch.rand(2, 32, 32, 3), 2)


def test_each_new_frame_is_reported_and_the_report_may_stop_the_run() -> None:
    counts: list[int] = []
    run(Blend(), torch.rand(3, 32, 32, 3), 4, batch=3, computed=counts.append)
    assert counts == [3, 1, 3, 1]

    def stop(_: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(Blend(), torch.rand(3, 32, 32, 3), 1, computed=stop)


def test_it_streams_a_frame_comes_out_before_the_next_but_one_goes_in() -> None:
    taken: list[int] = []

    def clip() -> Iterator[torch.Tensor]:
        for index in range(5):
            taken.append(index)
            yield torch.rand(1, 32, 32, 3)

    made = interpolate(clip(), 1, Interpolator(Blend(), torch.device("cpu")))
    next(made)
    assert taken == [0]
    next(made)
    assert taken == [0, 1]


@pytest.mark.parametrize("new_frames", [1, 2, 3, 4])
def test_at_a_cut_the_frame_before_it_stays(new_frames: int) -> None:
    network = rife()
    scenes = [torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(seed)), (64, 64)) for seed in (1, 2)]
    clip = torch.cat([scenes[0], scenes[0], scenes[1], scenes[1]]).movedim(1, -1)
    made = run(network, clip, new_frames, scene_cut=0.5)
    step = new_frames + 1
    assert torch.equal(made[step : 2 * step], clip[1:2].expand(step, -1, -1, -1))
    mixed = run(network, clip, new_frames, scene_cut=None)
    assert not torch.equal(mixed[step + 1 : 2 * step], made[step + 1 : 2 * step])
    assert torch.equal(made[:step], mixed[:step])


def test_similarity_is_1_for_equal_and_low_for_unrelated_pictures() -> None:
    first, second = torch.rand(2, 1, 3, 32, 32)
    assert similarity(first, first) == pytest.approx(1)
    assert similarity(first, second) < 0.2
    assert similarity(first, second) == similarity(second, first)


@pytest.mark.parametrize("size", [(32, 32), (33, 45), (61, 100)])
@pytest.mark.parametrize("network", [film, rife, OpticalFlow])
@pytest.mark.parametrize("new_frames", [1, 2, 3])
def test_any_size_from_32x32_up(size: tuple[int, int], network: Any, new_frames: int) -> None:
    clip = torch.rand(2, *size, 3)
    made = run(network(), clip, new_frames)
    assert made.shape == (new_frames + 2, *size, 3)
    assert made.isfinite().all()
    assert made.min() >= 0 and made.max() <= 1


def test_new_frames_have_the_type_of_the_given_ones() -> None:
    assert run(Blend(), torch.rand(2, 32, 32, 3, dtype=torch.float64), 1).dtype == torch.float64


@pytest.mark.parametrize(("clip", "message"), [
    (torch.zeros(0, 32, 32, 3), "0 frames"),
    (torch.full((2, 32, 32, 3), torch.nan), "frame 0 holds NaN"),
    (torch.zeros(2, 31, 64, 3), "64x31"),
    (torch.zeros(2, 32, 32, 4), "4 channels"),
])
def test_bad_clips_are_errors_that_say_what_is_wrong(clip: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run(Blend(), clip, 1)


def test_frames_of_another_size_are_an_error() -> None:
    clip = iter([torch.zeros(1, 32, 32, 3), torch.zeros(1, 32, 64, 3)])
    with pytest.raises(ValueError, match="frame 1 is 64x32, those before it are 32x32"):
        list(interpolate(clip, 1, Interpolator(Blend(), torch.device("cpu"))))


@pytest.mark.parametrize(("new_frames", "options"), [(-1, {}), (5, {}), (1, {"scene_cut": -0.1}), (1, {"scene_cut": 1.5})])
def test_numbers_out_of_range_are_errors_at_once(new_frames: int, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="choose 0 to 4|between 0"):
        interpolate(iter([]), new_frames, Interpolator(Blend(), torch.device("cpu")), **options)
    with pytest.raises(ValueError, match="timestep_batch is 0"):
        Interpolator(Blend(), torch.device("cpu"), timestep_batch=0)


def test_no_new_frames_pass_the_chunks_through_untouched() -> None:
    chunks = [torch.rand(2, 8, 8, 3)]
    (only,) = interpolate(iter(chunks), 0, Interpolator(Blend(), torch.device("cpu")))
    assert only is chunks[0]
