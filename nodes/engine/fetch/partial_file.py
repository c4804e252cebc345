"""A file while it arrives: written, hashed and checked chunk by chunk, in threads so that a slow disk holds nobody up."""

import asyncio
import contextlib
import hashlib
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from .rules import DownloadFailed, DownloadRefused
from .safetensors_header import HeaderCheck

P = ParamSpec("P")
T = TypeVar("T")

PROGRESS_STEP = 0.05
PROGRESS_SECONDS = 5.0
SPARE_BYTES = 2**29  # what a file leaves free on the disk


class PartialFile:
    """The part of a file that has come so far. DownloadRefused as soon as it is too large, no safetensors file, or not of the promised size."""

    def __init__(self, part: Path, max_bytes: int, promised: int | None, setting: str = "downloads.max_bytes") -> None:
        """`setting` is where the owner set `max_bytes`."""
        self.size, self._setting = 0, setting
        self._max_bytes, self._promised = max_bytes, promised
        self._header, self._digest = HeaderCheck(), hashlib.sha256()
        self._check_sizes()
        self._file = part.open("r+b", buffering=0)

    def recall(self) -> None:
        """Take in what earlier attempts have left in the part."""
        while chunk := self._file.read(2**20):
            self._take(chunk)

    def add(self, chunk: bytes) -> None:
        self._take(chunk)
        rest = memoryview(chunk)
        while rest:
            rest = rest[self._file.write(rest):]

    def finished(self) -> str:
        """The sha256 of all of it. DownloadRefused where bytes are missing although the server sent what it promised."""
        if self.size != self._header.file_bytes:
            raise DownloadRefused(f"the file is truncated: it has {self.size} bytes and its safetensors header needs "
                                  f"{self._header.file_bytes or 'more'}. Choose another one.")
        return self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()

    def _take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        self._header.add(chunk)
        self._check_sizes()
        self._digest.update(chunk)

    def _check_sizes(self) -> None:
        needed = self._header.file_bytes
        largest = max(self.size, self._promised or 0, needed or 0)
        if largest > self._max_bytes:
            raise DownloadRefused(f"the file has {largest} bytes or more; this server takes at most {self._max_bytes}. Choose a smaller one, "
                                  f"or ask its owner to raise {self._setting}.")
        if needed is not None and (self.size > needed or self._promised not in (None, needed)):
            raise DownloadRefused(f"the file's safetensors header needs {needed} bytes and it has {self._promised or self.size}: "
                                  "it is truncated or no safetensors file. Choose another one.")


def check_space(folder: Path, needed: int) -> None:
    """DownloadFailed where the disk of `folder` has no room for `needed` bytes more and some to spare."""
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise DownloadFailed(f"the server's disk has {megabytes(free)} free; this file needs {megabytes(needed)} and leaves "
                             f"{megabytes(SPARE_BYTES)}. Its owner must free space.")


class Progress:
    """Says how far a download is, at most once per PROGRESS_STEP of it or PROGRESS_SECONDS."""

    def __init__(self, log: Callable[[str], None], name: str, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._name, self._total, self._clock = log, name, total, clock
        self._reported_at, self._reported = clock(), 0

    def at(self, size: int) -> None:
        far = size - self._reported >= (self._total or math.inf) * PROGRESS_STEP
        if not far and self._clock() - self._reported_at < PROGRESS_SECONDS:
            return
        self._reported_at, self._reported = self._clock(), size
        part = f"{100 * size // self._total} % of {megabytes(self._total)}" if self._total else megabytes(size)
        self._log(f"{self._name}: {part}")


def megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB"


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """As asyncio.to_thread; cancelled, however often, it first waits for the thread, so that a file is not closed while it is written."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
