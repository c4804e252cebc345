"""Loops turn and fade without a seam, in bounded memory, and sound goes with them."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.frames import Audio, FrameStream, joined
from engine.video.edit import CROSS_FADE, LOOPS, PING_PONG, Edit, fade_length

COUNTS = (1, 2, 3, 4, 8, 17, 81)


def clip(count: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(count).integers(0, np.iinfo(dtype).max, (count, 4, 6, 3)).astype(dtype)


def edited(frames: np.ndarray, edit: Edit, folder: Path, claimed: int | None = None) -> np.ndarray:
    chunks = (frames[begin : begin + 3] for begin in range(0, len(frames), 3))
    return np.concatenate(list(edit.clip(chunks, claimed or len(frames), folder)))


def stream(count: int, audio: Audio | None = None) -> FrameStream:
    return FrameStream(6, 4, count, Fraction(10), lambda: iter([]), audio)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("reverse", [False, True])
def test_ping_pong_turns_and_shows_neither_end_twice(tmp_path: Path, count: int, reverse: bool) -> None:
    frames, edit = clip(count), Edit(reverse, PING_PONG)
    forwards = frames[::-1] if reverse else frames
    looped = edited(frames, edit, tmp_path)
    np.testing.assert_array_equal(looped, np.concatenate([forwards, forwards[1:-1][::-1]]))
    assert len(looped) == edit.stream(stream(count)).count


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_cross_fade_has_no_seam(tmp_path: Path, count: int, dtype: type) -> None:
    """Round the loop no step is larger than the largest within the clip and an even share of the way from its end to its beginning."""
    frames, edit, faded = clip(count, dtype), Edit(loop=CROSS_FADE), fade_length(count)
    looped = edited(frames, edit, tmp_path)
    assert len(looped) == edit.stream(stream(count)).count == count - faded
    assert looped.dtype == dtype
    np.testing.assert_array_equal(looped[: count - 2 * faded], frames[faded : count - faded])
    if faded:
        exact = frames.astype(float)
        within, apart = np.abs(np.diff(exact, axis=0)).max(), np.abs(exact[-faded:] - exact[:faded]).max()
        assert np.abs(np.roll(looped, -1, axis=0) - looped.astype(float)).max() <= within + apart / (faded + 1) + 1


def test_a_still_clip_stays_as_it_is(tmp_path: Path) -> None:
    still = np.repeat(clip(1), 20, axis=0)
    np.testing.assert_array_equal(edited(still, Edit(loop=CROSS_FADE), tmp_path), still[:16])


@pytest.mark.parametrize("count", [1, 5, 9, 19])
def test_a_clip_that_is_shorter_than_its_file_said_is_faded_as_far_as_it_goes(tmp_path: Path, count: int) -> None:
    assert count - fade_length(40) <= len(edited(clip(count), Edit(loop=CROSS_FADE), tmp_path, claimed=40)) <= count


@pytest.mark.parametrize("loop", LOOPS)
def test_frames_are_handed_on_while_the_clip_is_made_and_nothing_stays_behind(tmp_path: Path, loop: str) -> None:
    made = 0

    def making() -> Iterator[np.ndarray]:
        nonlocal made
        for chunk in np.split(clip(160), 20):
            made += len(chunk)
            yield chunk

    looped = Edit(loop=loop).clip(making(), 160, tmp_path)
    next(looped)
    assert made <= 2 * fade_length(160) + 16
    assert list(tmp_path.iterdir()) == []


def test_sound_turns_with_the_pictures() -> None:
    heard = Edit(loop=PING_PONG).stream(stream(10, Audio(torch.arange(100.0)[None], 100))).audio
    assert heard is not None
    np.testing.assert_array_equal(heard.waveform[0], [*range(100), *range(89, 9, -1)])


def test_sound_is_faded_with_the_pictures() -> None:
    """Constant sound stays as it is, and what sounded in the first frame that is shown still does."""
    pressed = torch.ones(1, 100)
    pressed[0, 25] = 5
    heard = Edit(loop=CROSS_FADE).stream(stream(10, Audio(pressed, 100))).audio
    assert heard is not None
    expected = torch.ones(80)
    expected[5] = 5
    torch.testing.assert_close(heard.waveform[0], expected)


@pytest.mark.parametrize("samples", [3, 100, 400])
@pytest.mark.parametrize("loop", LOOPS[1:])
@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_sound_lasts_as_long_as_the_loop(count: int, loop: str, samples: int) -> None:
    looped = Edit(True, loop).stream(stream(count, Audio(torch.rand(2, samples), 100)))
    assert looped.audio is not None
    assert looped.audio.waveform.shape == (2, round(looped.duration * 100))


def test_sounds_of_a_batch_follow_one_another() -> None:
    one = Audio(torch.ones(1, 3), 10)
    sound = joined([(None, 0.2), (one, 0.2), (one, 0.5)])
    assert sound is not None
    assert sound.waveform[0].tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]
    assert joined([(None, 1.0)]) is None


def test_an_unknown_loop_is_refused() -> None:
    with pytest.raises(ValueError, match="loop is 'round'; choose one of: off, ping-pong, cross-fade"):
        Edit(loop="round")
