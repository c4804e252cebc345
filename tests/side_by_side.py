"""One video of several clips beside each other, with captions painted above them and a line below."""

import textwrap
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from engine.frames import FrameStream
from engine.video.formats import VideoFormat
from engine.video.write import PartFile, write_file

AT_ONCE = 8  # frames
LEAST_WIDTH = 384  # of a clip as it is shown, in pixels, so that its caption can be read
GAP = 4
MOST_LINES = 3  # of text below
FONT = cv2.FONT_HERSHEY_SIMPLEX
FONT_HEIGHT = 21  # pixels of a capital letter at scale 1
PAPER, INK = (24, 24, 24), (235, 235, 235)


def write_side_by_side(path: Path, clips: Sequence[np.ndarray], captions: Sequence[Sequence[str]], line: str, rate: int) -> None:
    """An MP4 of 8-bit clips (T, H, W, 3) of one shape, each below its caption of some lines; small clips are shown larger."""
    panels = Panels(clips, captions, line)
    path.with_name(f"{path.name}.part").unlink(missing_ok=True)  # of a run that was killed
    stream = FrameStream(panels.width, panels.height, len(clips[0]), Fraction(rate), lambda: iter(()))
    write_file(PartFile(path, may_replace=True), panels.frames(), stream, VideoFormat(), {"comment": line})


class Panels:
    """Clips beside each other: what stands still is painted once."""

    def __init__(self, clips: Sequence[np.ndarray], captions: Sequence[Sequence[str]], line: str) -> None:
        self.clips = clips
        _, height, width, _ = clips[0].shape
        self.zoom = -(-LEAST_WIDTH // width) if width < LEAST_WIDTH else 1
        panel = width * self.zoom
        row = panel // 24 // 2 * 2 + 8  # pixels of a line of text
        self.head = beside([text_block(caption, panel, row) for caption in captions])
        self.foot = text_block(wrapped(line, self.head.shape[1], row), self.head.shape[1], row)
        self.width, self.height = self.head.shape[1], len(self.head) + height * self.zoom + len(self.foot)

    def frames(self) -> Iterator[np.ndarray]:
        """A few at a time, as the writer takes them."""
        for first in range(0, len(self.clips[0]), AT_ONCE):
            yield np.stack([self._frame(pictures) for pictures in zip(*(clip[first : first + AT_ONCE] for clip in self.clips), strict=True)])

    def _frame(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        shown = [picture.repeat(self.zoom, 0).repeat(self.zoom, 1) for picture in pictures]
        return np.concatenate([self.head, beside(shown), self.foot])


def beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (H, W, 3) of one height in a row, with gaps between them."""
    gap = np.full((len(pictures[0]), GAP, 3), PAPER, np.uint8)
    return np.concatenate([part for picture in pictures for part in (gap, picture)][1:], axis=1)


def wrapped(text: str, width: int, row: int) -> list[str]:
    """The text in lines that fit at full size, but for what is beyond MOST_LINES; the font has ASCII alone."""
    written = " ".join(text.encode("ascii", "ignore").decode().split())
    letter = cv2.getTextSize(written, FONT, scale_of(row), 1)[0][0] / max(1, len(written))
    return textwrap.wrap(written, max(8, int((width - row) / max(1, letter) * 0.95)), max_lines=MOST_LINES, placeholder=" ...") or [""]


def scale_of(row: int) -> float:
    return row * 0.5 / FONT_HEIGHT


def text_block(lines: Sequence[str], width: int, row: int) -> np.ndarray:
    """Lines of text (H, width, 3), each `row` pixels high and made smaller where it is too long."""
    block = np.full((row * len(lines), width, 3), PAPER, np.uint8)
    for index, line in enumerate(lines):
        length = cv2.getTextSize(line, FONT, scale_of(row), 1)[0][0]
        scale = scale_of(row) * min(1.0, (width - row) / max(1, length))
        cv2.putText(block, line, (row // 2, row * index + row * 3 // 4), FONT, scale, INK, max(1, row // 24), cv2.LINE_AA)
    return block
