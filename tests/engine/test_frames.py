"""Streams of frames: cut, counted, gathered and rounded."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.frames import Audio, FrameStream, chunks, gathered, section, to_levels

NUMBERED = torch.arange(23.0)[:, None, None, None].expand(23, 2, 4, 3)


@given(first=st.integers(0, 30), count=st.integers(1, 30), size=st.integers(1, 9))
def test_a_section_holds_the_same_frames_as_a_slice(first: int, count: int, size: int) -> None:
    found = [frame[0, 0, 0].item() for chunk in section(chunks(NUMBERED, size), first, count) for frame in chunk]
    assert found == NUMBERED[first : first + count, 0, 0, 0].tolist()


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
