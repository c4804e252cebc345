"""The gateway's folder of videos: each arrives in pieces, is there whole or not at all, and goes when its time or the room is over."""

import asyncio
import contextlib
import heapq
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import BinaryIO

from nodes.api.jobs.job import Job
from nodes.api.jobs.store import sync
from nodes.engine.log import log

from ..settings import ResultRules

SUFFIX = ".mp4"
ID = re.compile(r"[0-9a-f-]{36}")


class Arriving:
    """A video of which pieces come."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.size = file, 0

    async def add(self, piece: bytes) -> None:
        self.size += len(piece)
        await asyncio.to_thread(self._file.write, piece)

    def finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())


class Videos:
    """Files of complete jobs by their id. Nothing in it looks at all of them but the start."""

    def __init__(self, folder: Path, rules: ResultRules) -> None:
        self.folder, self.rules = folder, rules
        self._sizes: dict[str, int] = {}  # the oldest first
        self._ends: list[tuple[float, str]] = []  # a heap of when each is to go
        self.total = 0
        folder.mkdir(parents=True, exist_ok=True)

    def __len__(self) -> int:
        return len(self._sizes)

    def restore(self, jobs: Mapping[str, Job]) -> None:
        """What is there of these jobs; files of others, and of half videos, go."""
        for file in sorted(filter(Path.is_file, self.folder.iterdir()), key=lambda file: file.stat().st_mtime):
            job = jobs.get(file.stem)
            if file.suffix == SUFFIX and job is not None and job.answer is not None:
                self.keep(job, file.stat().st_size)
            else:
                file.unlink()

    def path(self, request_id: str) -> Path | None:
        """None for one that is not there, or whose time is over."""
        self.delete_what_is_over()
        return self.folder / f"{request_id}{SUFFIX}" if request_id in self._sizes else None

    @contextlib.asynccontextmanager
    async def arriving(self, request_id: str) -> AsyncIterator[Arriving]:
        """Under its own name once the block ends and a piece has come; nothing is left where it raises."""
        part = self.folder / f"{request_id}.part"
        try:
            with part.open("wb") as file:
                video = Arriving(file)
                yield video
                if video.size:
                    await asyncio.to_thread(video.finish)
            if video.size:
                part.replace(part.with_suffix(SUFFIX))
                await asyncio.to_thread(sync, self.folder)
        finally:
            part.unlink(missing_ok=True)

    def keep(self, job: Job, size: int) -> None:
        """The video of a complete job from now on counts, and older ones make room for it."""
        seconds = min(self.rules.seconds, job.preferences.video_seconds or self.rules.seconds)
        self._sizes[job.request_id] = size
        self.total += size
        heapq.heappush(self._ends, ((job.finished or time.time()) + seconds, job.request_id))
        while self.total > self.rules.max_bytes and len(self._sizes) > 1:
            self.delete(next(iter(self._sizes)))

    def delete(self, request_id: str) -> None:
        self.total -= self._sizes.pop(request_id, 0)
        if ID.fullmatch(request_id):
            try:
                (self.folder / f"{request_id}{SUFFIX}").unlink(missing_ok=True)
            except OSError as error:  # the next start tries it again
                log.warning("the video of request %s cannot be deleted: %s", request_id, error)

    def delete_what_is_over(self) -> None:
        while self._ends and self._ends[0][0] <= time.time():
            self.delete(heapq.heappop(self._ends)[1])
