"""Sizes and frame counts: the table, and the rules of the VAE and the patches."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.video.sizes import ASPECT_RATIOS, CUSTOM, MAX_FRAMES, RESOLUTIONS, Size, decoded_frames, latent_frames, video_size


@pytest.mark.parametrize(("resolution", "aspect_ratio", "size"), [
    ("480p", "16:9", (832, 480)), ("580p", "16:9", (1024, 576)), ("720p", "16:9", (1280, 720)),
    ("480p", "9:16", (480, 832)), ("580p", "9:16", (576, 1024)), ("720p", "9:16", (720, 1280)),
    ("480p", "1:1", (624, 624)), ("580p", "1:1", (768, 768)), ("720p", "1:1", (960, 960)),
    ("480p", "4:3", (736, 560)), ("580p", "4:3", (896, 672)), ("720p", "4:3", (1088, 832)),
    ("custom", "1:1", (64, 96)),
])
def test_the_table(resolution: str, aspect_ratio: str, size: tuple[int, int]) -> None:
    assert video_size(resolution, aspect_ratio, 64, 96) == Size(*size)


@pytest.mark.parametrize("aspect_ratio", ASPECT_RATIOS)
@pytest.mark.parametrize("resolution", [name for name in RESOLUTIONS if name != CUSTOM])
def test_every_shape_has_its_sides_in_proportion_and_the_area_of_the_wide_format(resolution: str, aspect_ratio: str) -> None:
    across, down = map(int, aspect_ratio.split(":"))
    size, wide = video_size(resolution, aspect_ratio, 0, 0), video_size(resolution, "16:9", 0, 0)
    assert size.width / size.height == pytest.approx(across / down, rel=0.03)
    assert size.width * size.height == pytest.approx(wide.width * wide.height, rel=0.04)
    assert video_size(resolution, f"{down}:{across}", 0, 0) == Size(size.height, size.width)


@given(st.integers(1, MAX_FRAMES))
def test_decoded_frames_cover_the_request_with_less_than_four_to_spare(num_frames: int) -> None:
    assert 0 <= decoded_frames(latent_frames(num_frames)) - num_frames < 4


@given(st.integers(17, 4095).filter(lambda side: side % 16))
def test_refused_sizes_name_the_nearest_valid_ones(side: int) -> None:
    with pytest.raises(ValueError, match=rf"height is {side}.*use {side // 16 * 16} or {side // 16 * 16 + 16}"):
        Size(64, side)


@pytest.mark.parametrize("arguments", [("1080p", "16:9", 64, 64), ("480p", "21:9", 64, 64), ("custom", "16:9", 0, 64), ("custom", "16:9", 64, 8192)])
def test_unknown_names_and_impossible_sides_are_refused(arguments: tuple[str, str, int, int]) -> None:
    with pytest.raises(ValueError, match="choose one of|must be between"):
        video_size(*arguments)


@pytest.mark.parametrize("num_frames", [-1, 0, 162])
def test_frame_counts_outside_the_range_are_refused(num_frames: int) -> None:
    with pytest.raises(ValueError, match=rf"num_frames is {num_frames}.*between 1 and 161"):
        latent_frames(num_frames)
