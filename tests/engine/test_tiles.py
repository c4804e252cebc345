"""Tiles cover the plane, and put together they show no seams."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.video.tiles import blend, windows


@given(height=st.integers(1, 200), width=st.integers(1, 200), tile=st.sampled_from([16, 32, 64]))
def test_blending_what_was_cut_gives_the_plane_back(height: int, width: int, tile: int) -> None:
    plane = torch.rand(1, 2, height, width)
    cut = [(window, window.of(plane)) for window in windows(height, width, tile, tile // 4)]
    assert all(max(piece.shape[-2:]) <= tile for _, piece in cut)
    torch.testing.assert_close(blend(cut, height, width, tile // 4), plane)


@given(length=st.integers(17, 300))
def test_neighbours_share_at_least_the_overlap(length: int) -> None:
    spans = [(window.top, window.bottom) for window in windows(length, 8, 16, 4)]
    assert (spans[0][0], spans[-1][1]) == (0, length)
    assert all(end - begin >= 4 for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))


@pytest.mark.parametrize("error", [0.1, -0.1])
def test_tiles_that_disagree_blend_without_a_step(error: float) -> None:
    """Each tile is off by its own constant; between neighbouring pixels no step is larger than the ramp's."""
    cut = [(window, torch.full((window.bottom - window.top, window.right - window.left), error * index))
           for index, window in enumerate(windows(16, 60, 16, 4))]
    seen = blend(cut, 16, 60, 4)
    assert seen.diff(dim=1).abs().max() <= abs(error) / 4 + 1e-6
