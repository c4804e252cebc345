"""Backwards through a file: exact, bounded, and nothing stays behind."""

from pathlib import Path

import numpy as np
import pytest

from engine.video.spool import backwards


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("count", [1, 7, 8, 20])
def test_the_last_frame_comes_first_and_none_changes(tmp_path: Path, dtype: type, count: int) -> None:
    frames: np.ndarray = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (count, 4, 6, 3)).astype(dtype)
    cut = (frames[start : start + 3] for start in range(0, count, 3))
    np.testing.assert_array_equal(np.concatenate(list(backwards(cut, tmp_path))), frames[::-1])


def test_nothing_stays_in_the_folder_even_if_nobody_finishes(tmp_path: Path) -> None:
    abandoned = backwards(iter([np.zeros((20, 4, 4, 3), np.uint8)]), tmp_path)
    next(abandoned)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_stream_stays_empty(tmp_path: Path) -> None:
    assert list(backwards(iter([]), tmp_path)) == []
