"""Levels without loss on the disk, so that a clip can be played again or backwards in bounded memory."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from ..frames import CHUNK


@contextlib.contextmanager
def spool(folder: Path) -> Iterator["Spool"]:
    """An empty spool in `folder`. Its file has no name on POSIX and is deleted with its handle on Windows, so that nothing stays behind, not even
    after a crash.
    """
    with tempfile.TemporaryFile(dir=folder, prefix="wan22-spool-") as file:
        yield Spool(file)


class Spool:
    """The frames of a clip in a file, to be read in any order. OSError when there is no room."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.count = file, 0
        self.shape, self.dtype = (0,), np.dtype(np.uint8)

    def append(self, chunk: np.ndarray) -> None:
        """Frames (T, H, W, 3) after those that are there; all of one shape and type."""
        self.shape, self.dtype = chunk.shape[1:], chunk.dtype
        self.file.seek(self.count * self._frame_bytes)
        self.file.write(np.ascontiguousarray(chunk).data)
        self.count += len(chunk)

    def filled(self, clip: Iterator[np.ndarray]) -> "Spool":
        for chunk in clip:
            self.append(chunk)
        return self

    def frames(self, begin: int, end: int) -> np.ndarray:
        """Frames `begin` to `end - 1` as one array; read-only."""
        self.file.seek(begin * self._frame_bytes)
        return np.frombuffer(self.file.read((end - begin) * self._frame_bytes), self.dtype).reshape(end - begin, *self.shape)

    def forwards(self, begin: int, end: int) -> Iterator[np.ndarray]:
        """Frames `begin` to `end - 1` in chunks."""
        for first in range(begin, end, CHUNK):
            yield self.frames(first, min(end, first + CHUNK))

    def backwards(self, begin: int, end: int) -> Iterator[np.ndarray]:
        """Frames `end - 1` down to `begin` in chunks."""
        for last in range(end, begin, -CHUNK):
            yield self.frames(max(begin, last - CHUNK), last)[::-1]

    @property
    def _frame_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize


def backwards(clip: Iterator[np.ndarray], folder: Path) -> Iterator[np.ndarray]:
    """Chunks (T, H, W, 3) of `clip`, last frame first."""
    with spool(folder) as kept:
        yield from kept.filled(clip).backwards(0, kept.count)


def played_again(clip: Iterator[np.ndarray], folder: Path) -> Iterator[np.ndarray]:
    """Chunks of `clip` from its beginning, once all of it has been made."""
    with spool(folder) as kept:
        yield from kept.filled(clip).forwards(0, kept.count)
