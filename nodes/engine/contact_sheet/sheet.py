"""A contact sheet: frames spread evenly over each of several clips, as one picture, out of one pull of each stream."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from ..choices import check_range
from ..frames import FrameStream, to_levels
from ..packages import opencv
from .lettering import Font, font_for, shortened, write

Picture = np.ndarray  # uint8 (H, W, 3)
MAX_COLUMNS, MAX_ROWS = 32, 32
MIN_WIDTH, MAX_WIDTH = 64, 2048  # of a cell, in pixels
MOST_PIXELS = 2**26  # 800 MB as ComfyUI's IMAGE
GAP = 8  # pixels around each cell
BACKGROUND = 40  # of 255
LETTERS_PER_CELL = 12  # the height of the letters in the width of a cell
SMALLEST_LETTERS = 12  # pixels
LINE_HEIGHT = 1.5  # of the letters


@dataclass(frozen=True)
class Sheet:
    """How a contact sheet shall look: each clip in `columns` by `rows` cells of `cell_width` pixels, with or without numbers, and a line of
    `captions` above each clip."""

    columns: int = 5
    rows: int = 1
    cell_width: int = 320
    numbers: bool = True
    captions: str = ""

    def __post_init__(self) -> None:
        check_range("columns", self.columns, 1, MAX_COLUMNS)
        check_range("rows", self.rows, 1, MAX_ROWS)
        check_range("cell_width", self.cell_width, MIN_WIDTH, MAX_WIDTH)
        self.font()

    @property
    def letters(self) -> int:
        """Height of the letters in pixels."""
        return max(SMALLEST_LETTERS, self.cell_width // LETTERS_PER_CELL)

    def font(self) -> Font:
        return font_for(self.captions, self.letters)

    def headings(self, clips: int) -> list[str]:
        """What stands above each clip: its caption, and before it the clip's number where there are several."""
        captions = [line.strip() for line in self.captions.rstrip().split("\n")]
        if len(captions) > clips:
            raise ValueError(f"captions has {len(captions)} lines, but there {'is 1 clip' if clips == 1 else f'are {clips} clips'}. "
                             "Give each clip one line.")
        captions += [""] * (clips - len(captions))
        return [f"{number}  {caption}".rstrip() for number, caption in enumerate(captions)] if self.numbers and clips > 1 else captions


@dataclass(frozen=True)
class Layout:
    """Where everything lies on a sheet, in pixels; each of the clips, which have `lengths` frames, takes a block as wide as the sheet."""

    columns: int
    rows: int
    cell_width: int
    cell_height: int
    heading: int
    lengths: tuple[int, ...]

    @staticmethod
    def of(videos: Sequence[FrameStream], sheet: Sheet) -> "Layout":
        """ValueError for captions that are too many, and for a sheet that is too large."""
        lengths = tuple(length for video in videos for length in video.lengths)
        headings = sheet.headings(len(lengths))
        cells, first = max(1, min(sheet.columns * sheet.rows, max(lengths))), videos[0]
        columns = min(sheet.columns, cells)
        cell_height = max(1, round(sheet.cell_width * first.height / float(first.width * first.pixel_aspect)))
        heading = round(LINE_HEIGHT * sheet.letters) if any(headings) else 0
        layout = Layout(columns, -(-cells // columns), sheet.cell_width, cell_height, heading, lengths)
        if layout.width * layout.height > MOST_PIXELS:
            raise ValueError(f"the contact sheet would be {layout.width}x{layout.height} pixels, which is {layout.width * layout.height / 1e6:.0f} "
                             f"million; {MOST_PIXELS / 1e6:.0f} million is the limit. Take fewer columns, rows or clips, or a smaller cell_width.")
        return layout

    @property
    def width(self) -> int:
        return GAP + self.columns * (self.cell_width + GAP)

    @property
    def block(self) -> int:
        """Height of a clip."""
        return self.heading + self.rows * (self.cell_height + GAP)

    @property
    def height(self) -> int:
        return GAP + len(self.lengths) * self.block

    def frames(self, clip: int) -> list[int]:
        """The frames of a clip that are shown, from its first to its last."""
        length = self.lengths[clip]
        return np.linspace(0, length - 1, min(length, self.columns * self.rows)).round().astype(int).tolist()

    def corner(self, clip: int, cell: int) -> tuple[int, int]:
        """Left and top of a cell; that of cell 0 is where the clip's heading ends."""
        row, column = divmod(cell, self.columns)
        return GAP + column * (self.cell_width + GAP), GAP + clip * self.block + self.heading + row * (self.cell_height + GAP)


def contact_sheet(videos: Sequence[FrameStream], sheet: Sheet) -> Picture:
    """The frames of all clips of all videos, each clip below the other; frames are scaled into cells of the first video's shape.

    Each stream is pulled once, and of its frames only the scaled ones that are shown are kept. ValueError before any is pulled for settings that do
    not fit the videos, and where OpenCV is missing.
    """
    opencv()
    layout = Layout.of(videos, sheet)
    picture = np.full((layout.height, layout.width, 3), BACKGROUND, np.uint8)
    for number, clip in enumerate(clip for video in videos for clip in video.clips()):
        for cell, frame in enumerate(_picked(clip.pull(), layout.frames(number))):
            small = _fitted(frame, float(clip.pixel_aspect), layout)
            left, top = (corner + (space - side) // 2 for corner, space, side in zip(
                layout.corner(number, cell), (layout.cell_width, layout.cell_height), small.shape[1::-1], strict=True))
            picture[top : top + small.shape[0], left : left + small.shape[1]] = small
    return _lettered(picture, layout, sheet)


def _picked(clip: Iterator[torch.Tensor], wanted: Sequence[int]) -> Iterator[Picture]:
    """Frames of a clip, which is pulled to its end, by their numbers."""
    position = 0
    for chunk in clip:
        for index in wanted:
            if position <= index < position + len(chunk):
                yield to_levels(chunk[index - position : index - position + 1])[0]
        position += len(chunk)


def _fitted(frame: Picture, pixel_aspect: float, layout: Layout) -> Picture:
    """The frame as large as fits into a cell, with square pixels."""
    cv2 = opencv()
    height, width = frame.shape[0], frame.shape[1] * pixel_aspect
    scale = min(layout.cell_width / width, layout.cell_height / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))


def _lettered(picture: Picture, layout: Layout, sheet: Sheet) -> Picture:
    drawn, font = Image.fromarray(picture), sheet.font()
    canvas = ImageDraw.Draw(drawn)
    for clip, heading in enumerate(sheet.headings(len(layout.lengths))):
        left, top = layout.corner(clip, 0)
        write(canvas, shortened(heading, font, layout.width - 2 * GAP), (left, top - GAP // 2), font)
        for cell, frame in enumerate(layout.frames(clip) if sheet.numbers else ()):
            left, top = layout.corner(clip, cell)
            write(canvas, str(frame), (left + GAP, top + layout.cell_height - GAP // 2), font)
    return np.array(drawn)
