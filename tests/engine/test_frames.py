"""Streams of frames: cut, counted, gathered and rounded."""

from collections.abc import Iterator
from fractions import Fraction
from itertools import accumulate, groupby, pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from engine.frames import Audio, FrameStream, chunks, gathered, section, to_levels

NUMBERED = torch.arange(23.0)[:, None, None, None].expand(23, 2, 4, 3)


@given(first=st.integers(0, 30), count=st.integers(1, 30), size=st.integers(1, 9))
def test_a_section_holds_the_same_frames_as_a_slice(first: int, count: int, size: int) -> None:
    values = [frame[0, 0, 0].item() for chunk in section(chunks(NUMBERED, size), first, count) for frame in chunk]
    assert values == NUMBERED[first : first + count, 0, 0, 0].tolist()


def test_a_section_pulls_no_further_than_it_must() -> None:
    clip = chunks(NUMBERED, 5)
    list(section(clip, 0, 7))
    assert next(clip)[0, 0, 0, 0] == 10


@pytest.mark.parametrize("expected", [1, 22, 23, 40])
def test_gathering_forgives_a_wrong_count(expected: int) -> None:
    assert torch.equal(gathered(chunks(NUMBERED, 4), expected), NUMBERED)


def test_a_part_of_a_stream_keeps_its_part_of_the_sound() -> None:
    stream = FrameStream(4, 2, 23, Fraction(10), lambda: chunks(NUMBERED), Audio(torch.arange(2300.0)[None], 1000))
    part = stream.part(5, 10)
    assert part.audio is not None
    assert torch.equal(part.audio.waveform, torch.arange(500.0, 1500.0)[None])
    assert (part.count, part.duration) == (10, 1.0)
    assert torch.equal(gathered(part.pull(), 10), NUMBERED[5:15])
    assert torch.equal(gathered(part.pull(), 10), NUMBERED[5:15])


def test_rounding_is_to_the_nearest_level_and_alpha_is_dropped() -> None:
    pixels = torch.tensor([[[[0.0, 0.998, 1.7, 0.5]]]])
    assert to_levels(pixels).tolist() == [[[[0, 254, 255]]]]
    assert to_levels(torch.full((1, 1, 1, 3), 100.6 / 255)).tolist() == [[[[101, 101, 101]]]]
    assert to_levels(pixels, 16).tolist() == [[[[0, 65149, 65280]]]]


def test_rounding_leaves_the_frames_as_they_were() -> None:
    frames = torch.rand(2, 3, 4, 3)
    before = frames.clone()
    to_levels(frames)
    assert torch.equal(frames, before)


def batch(lengths: list[int], size: int, sound: Audio | None = None) -> tuple[FrameStream, list[int]]:
    """Videos of these lengths in one stream, in chunks of `size` frames that heed no seam; and a note of each pull."""
    count, pulls = sum(lengths), []
    numbered = torch.arange(float(count))[:, None, None, None].expand(count, 2, 4, 3)

    def pull() -> Iterator[torch.Tensor]:
        pulls.append(1)
        yield from chunks(numbered, size)

    return FrameStream(4, 2, count, Fraction(10), pull, sound, seams=tuple(accumulate(lengths[:-1]))), pulls


def numbers(clip: Iterator[torch.Tensor]) -> list[int]:
    return [int(frame[0, 0, 0]) for chunk in clip for frame in chunk]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), size=st.integers(1, 9))
def test_the_clips_of_a_batch_are_its_videos_whole_in_order_and_out_of_one_pull(lengths: list[int], size: int) -> None:
    stream, pulls = batch(lengths, size)
    assert stream.lengths == tuple(lengths)
    clips = [(clip.count, clip.seams, numbers(clip.pull())) for clip in stream.clips()]
    assert clips == [(end - begin, (), list(range(begin, end))) for begin, end in pairwise(accumulate([0, *lengths]))]
    assert len(pulls) == 1


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), first=st.integers(0, 20), count=st.integers(1, 20))
def test_a_part_of_a_batch_keeps_the_seams_that_lie_in_it(lengths: list[int], first: int, count: int) -> None:
    stream, _ = batch(lengths, 4)
    assume(first + count <= stream.count)
    part = stream.part(first, count)
    videos = [number for number, length in enumerate(lengths) for _ in range(length)][first : first + count]
    assert part.lengths == tuple(len(list(same)) for _, same in groupby(videos))


def test_each_clip_of_a_batch_has_its_part_of_the_sound() -> None:
    stream, _ = batch([5, 10], 4, Audio(torch.arange(1500.0)[None], 1000))
    heard = [clip.audio.waveform[0] for clip in stream.clips() if clip.audio]
    assert [(float(part[0]), float(part[-1])) for part in heard] == [(0, 499), (500, 1499)]


@pytest.mark.parametrize("seams", [(0,), (23,), (5, 5), (9, 4)])
def test_seams_that_leave_a_video_without_frames_are_refused(seams: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"the seams are .* they must rise between 0 and the number of frames, 23"):
        FrameStream(4, 2, 23, Fraction(10), lambda: chunks(NUMBERED), seams=seams)
