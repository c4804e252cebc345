"""The moving preview: all frames in order, in the clip's own time, never too large."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from engine.video.moving_picture import MOST_BYTES, SIDE, moving_picture, small_size


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_it_plays_every_frame_in_order_in_the_time_of_the_clip() -> None:
    greys = [20, 70, 120, 170, 220]
    picture = opened(moving_picture(np.stack([np.full((24, 32, 3), grey, np.uint8) for grey in greys]), 1.25))
    frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    assert [round(float(frame.mean()) / 50) for frame in frames] == [round(grey / 50) for grey in greys]
    assert picture.info["duration"] == 250 and picture.info["loop"] == 0


@pytest.mark.parametrize("frames", [1, 21, 41])
def test_noise_of_the_largest_size_stays_below_the_limit(frames: int) -> None:
    """The first steps show nothing but noise, which no codec makes small."""
    clip = np.random.default_rng(1).integers(0, 256, (frames, SIDE, SIDE, 3), np.uint8)
    content = moving_picture(clip, 5.0)
    assert len(content) <= MOST_BYTES
    assert opened(content).size == (SIDE, SIDE)


@given(width=st.integers(1, 5000), height=st.integers(1, 5000))
def test_small_sizes_keep_the_proportions(width: int, height: int) -> None:
    small = small_size(width, height, SIDE)
    assert max(small) <= SIDE and min(small) >= 1
    assert small == (width, height) if max(width, height) <= SIDE else max(small) == SIDE
    assert abs(small[0] * height - small[1] * width) <= max(width, height)
