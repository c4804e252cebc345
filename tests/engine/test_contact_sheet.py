"""Contact sheets: the right frames at the right places, out of one pull, with words that can be read."""

import weakref
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contact_sheet import lettering
from engine.contact_sheet.sheet import BACKGROUND, GAP, Layout, Sheet, contact_sheet
from engine.frames import FrameStream, chunks

PLAIN = Sheet(numbers=False, cell_width=64)


def video(lengths: list[int], width: int = 16, height: int = 8, grey: float | None = None) -> FrameStream:
    """Clips of these lengths; each frame is as grey as its number in the whole, of 255, or all are of one grey."""
    count = sum(lengths)
    levels = torch.arange(float(count)) / 255 if grey is None else torch.full((count,), grey)
    frames = levels[:, None, None, None].expand(count, height, width, 3)
    return FrameStream(width, height, count, Fraction(16), lambda: chunks(frames, 3), seams=tuple(accumulate(lengths[:-1])))


def cells(picture: np.ndarray, layout: Layout, clip: int) -> list[int]:
    """The grey in the middle of each cell of a clip."""
    places = [layout.corner(clip, cell) for cell in range(layout.columns * layout.rows)]
    return [int(picture[top + layout.cell_height // 2, left + layout.cell_width // 2, 0]) for left, top in places]


@settings(deadline=None, max_examples=30)
@given(clips=st.lists(st.integers(1, 12), min_size=1, max_size=4), columns=st.integers(1, 5), rows=st.integers(1, 3))
def test_each_clip_is_shown_from_its_first_to_its_last_frame_in_even_steps(clips: list[int], columns: int, rows: int) -> None:
    sheet, stream = replace(PLAIN, columns=columns, rows=rows), video(clips)
    layout, picture = Layout.of([stream], sheet), contact_sheet([stream], sheet)
    assert picture.shape == (layout.height, layout.width, 3)
    for number, (begin, length) in enumerate(zip(accumulate([0, *clips]), clips, strict=False)):
        frames = [grey - begin for grey in cells(picture, layout, number)[: min(length, columns * rows)]]
        assert frames == layout.frames(number) and len(frames) == min(length, columns * rows)
        assert frames[0] == 0 and (frames[-1] == length - 1 or len(frames) == 1)
        steps = np.diff(frames)
        assert len(steps) == 0 or steps.max() - steps.min() <= 1
        assert set(cells(picture, layout, number)[len(frames):]) <= {BACKGROUND}


def test_several_videos_and_the_clips_of_a_batch_stand_one_below_the_other() -> None:
    videos = [video([4, 3]), video([2], grey=1.0)]
    layout, picture = Layout.of(videos, PLAIN), contact_sheet(videos, PLAIN)
    assert [cells(picture, layout, clip)[0] for clip in range(3)] == [0, 4, 255]


@pytest.mark.parametrize("length", [17, 161])
def test_a_batch_is_pulled_once_and_its_frames_are_not_kept(length: int) -> None:
    seen: list[weakref.ref[torch.Tensor]] = []
    most = pulls = 0

    def pull() -> Iterator[torch.Tensor]:
        nonlocal most, pulls
        pulls += 1
        for _ in range(2 * length):
            chunk = torch.zeros(1, 8, 16, 3)
            seen.append(weakref.ref(chunk))
            most = max(most, sum(ref() is not None for ref in seen[-10:]))
            yield chunk

    contact_sheet([FrameStream(16, 8, 2 * length, Fraction(16), pull, seams=(length,))], replace(PLAIN, columns=8))
    assert pulls == 1 and most <= 2


@pytest.mark.parametrize(("width", "height", "pixel", "seen"),
                         [(16, 16, 1, (32, 32)), (32, 8, 1, (64, 16)), (8, 8, 2, (64, 32)), (640, 320, 1, (64, 32))])
def test_videos_of_another_shape_keep_theirs_in_cells_of_the_first_ones(width: int, height: int, pixel: int, seen: tuple[int, int]) -> None:
    videos = [video([1]), replace(video([1], width, height, grey=1.0), pixel_aspect=Fraction(pixel))]
    layout, picture = Layout.of(videos, PLAIN), contact_sheet(videos, PLAIN)
    assert (layout.cell_width, layout.cell_height) == (64, 32)
    left, top = layout.corner(1, 0)
    white = picture[top : top + 32, left : left + 64, 0] == 255
    assert (white.any(0).sum(), white.any(1).sum()) == seen
    assert np.array_equal(white, white[::-1, ::-1])


@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_numbers_stand_out_from_every_grey_and_say_which_frame(grey: float) -> None:
    sheet, stream = Sheet(columns=3), video([3], grey=grey)
    layout, picture = Layout.of([stream], sheet), contact_sheet([stream], sheet)
    labels = []
    for cell in range(3):
        left, top = layout.corner(0, cell)
        labels.append(picture[top + layout.cell_height - 2 * sheet.letters : top + layout.cell_height, left : left + 3 * sheet.letters])
        assert labels[-1].max() == 255 and labels[-1].min() == 0
    assert not np.array_equal(labels[0], labels[1]) and not np.array_equal(labels[1], labels[2])


def test_clips_are_numbered_before_their_captions_where_there_are_several() -> None:
    assert Sheet(captions="shift 5\n\nshift 8").headings(3) == ["0  shift 5", "1", "2  shift 8"]
    assert Sheet(captions="shift 5").headings(1) == ["shift 5"]
    assert Sheet(captions="shift 5\n\n", numbers=False).headings(2) == ["shift 5", ""]


def test_captions_take_room_above_their_clips_only_where_there_are_some() -> None:
    stream, captioned = video([2, 2], grey=1.0), replace(PLAIN, captions="\nsecond")
    without, layout = Layout.of([stream], PLAIN), Layout.of([stream], captioned)
    assert (without.heading, layout.height - without.height) == (0, 2 * layout.heading)
    picture = contact_sheet([stream], captioned)
    first, second = (picture[layout.corner(clip, 0)[1] - layout.heading : layout.corner(clip, 0)[1] - GAP] for clip in (0, 1))
    assert (first == BACKGROUND).all() and second.max() == 255


def test_a_long_caption_ends_on_the_sheet() -> None:
    font: Any = lettering.font_for("", 20)
    cut = lettering.shortened("wide " * 40, font, 300)
    assert cut.startswith("wide") and cut.endswith("...") and 250 < font.getlength(cut) <= 300
    assert lettering.shortened("short", font, 300) == "short"


def test_other_letters_come_from_an_installed_font_or_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lettering, "INSTALLED", ("no such font.ttf",))
    with pytest.raises(ValueError, match="captions has letters that no font here can draw: \u72d0.*install a font"):
        Sheet(captions="a \u72d0")


@pytest.mark.parametrize(("settings", "words"), [({"columns": 0}, "columns is 0; it must be between 1 and"), ({"rows": 99}, "rows is 99"),
                                                 ({"cell_width": 8}, "cell_width is 8; it must be between 64 and")])
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Sheet(**settings)


@pytest.mark.parametrize(("sheet", "words"), [(Sheet(captions="a\nb\nc"), "captions has 3 lines, but there are 2 clips. Give each clip one line"),
                                              (Sheet(columns=9, rows=32, cell_width=2048), r"\d+x\d+ pixels, .*67 million is the limit.*cell_width")])
def test_what_does_not_fit_the_videos_is_refused_before_any_is_pulled(sheet: Sheet, words: str) -> None:
    stream = replace(video([300, 300]), pull=lambda: pytest.fail("pulled"))
    with pytest.raises(ValueError, match=words):
        contact_sheet([stream], sheet)
