"""The folder in which requests outlive the server: a file per job, each written whole or not at all."""

import asyncio
import heapq
import json
import math
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from ..errors import NotFound
from .job import Job

KEPT = 1000  # finished jobs; then the oldest are forgotten
MOST_SERVERS = 99  # on one folder
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
J = TypeVar("J", bound=Job)


class JobStore(Generic[J]):
    """All jobs of a server by their id, in memory and in `folder`; of the finished ones the newest `kept`, and `forgotten` is told of the others.

    `kind` is the class of the jobs. Nothing looks through all of them: what is asked for often is counted as they come and end.
    """

    def __init__(self, folder: Path, kept: int = KEPT, forgotten: Callable[[J], None] = lambda job: None, kind: type[Any] = Job) -> None:
        self.folder, self._kept, self._forgotten = folder, kept, forgotten
        self._stored: TypeAdapter[J] = TypeAdapter(kind)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".lock")  # held until the process ends
        self.jobs: dict[str, J] = {}
        self._incomplete: defaultdict[str, set[str]] = defaultdict(set)  # by owner
        self._done: set[str] = set()  # complete, and their webhooks told
        self._oldest: list[tuple[float, str]] = []  # a heap of when these were complete, with some that are forgotten already

    @classmethod
    def claimed(cls, parent: Path, *arguments: Any, **named: Any) -> "JobStore[J]":
        """The first of requests, requests_2, ... that no other running server has, so that none ends another's jobs when it starts; the arguments
        are the class's behind its folder."""
        for number in range(1, MOST_SERVERS + 1):
            store = cls(parent / ("requests" if number == 1 else f"requests_{number}"), *arguments, **named)
            if store.claim():
                store.restore()
                return store
        raise OSError(f"{MOST_SERVERS} servers keep their requests in {parent} already.")

    def claim(self) -> bool:
        """Whether no other running server has the folder; from then on this one has it."""
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        except (OSError, NotImplementedError):
            pass  # this file system has no locks
        return True

    def restore(self) -> None:
        """Every job of before, without an answer where it was not complete. Damaged files are left out."""
        for part in self.folder.glob("*.part"):
            part.unlink(missing_ok=True)
        stored = filter(None, map(self._read, self.folder.glob("*.json")))
        for job in sorted(stored, key=lambda job: job.finished or math.inf):
            self.add(job)
            if job.answer is not None:
                job.done.set()
        self.forget_the_oldest()

    def add(self, job: J) -> None:
        self.jobs[job.request_id] = job
        self._count(job)

    def job(self, request_id: str, owner: str) -> J:
        """NotFound for what is not there, and for what is another key's."""
        job = self.jobs.get(request_id)
        if job is None or job.owner != owner:
            raise NotFound(f"Request {request_id[:64]}")
        return job

    def waiting(self, owner: str) -> int:
        """How many jobs of this owner are not complete."""
        return len(self._incomplete.get(owner, ()))

    async def keep(self, job: J) -> None:
        """Have its file on the disk, written in a thread. OSError where the disk is full or the folder read-only."""
        if job.request_id in self.jobs:
            self._count(job)
        await asyncio.to_thread(self._write, job.request_id, json.dumps(job.record()))

    def _count(self, job: J) -> None:
        if job.answer is None:
            self._incomplete[job.owner].add(job.request_id)
            return
        self._is_complete(job)
        if not job.webhook and job.request_id not in self._done:
            self._done.add(job.request_id)
            heapq.heappush(self._oldest, (job.finished or 0.0, job.request_id))

    def _is_complete(self, job: J) -> None:
        own = self._incomplete.get(job.owner, set())
        own.discard(job.request_id)
        if not own:
            self._incomplete.pop(job.owner, None)

    def _write(self, request_id: str, text: str) -> None:
        written = self.folder / f"{request_id}.{secrets.token_hex(4)}.part"
        try:
            written.touch(mode=0o600)  # webhooks are secrets
            with written.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            written.replace(self.folder / f"{request_id}.json")
            sync(self.folder)
        finally:
            written.unlink(missing_ok=True)

    def _read(self, file: Path) -> J | None:
        try:
            job = self._stored.validate_json(file.read_bytes())
        except (OSError, ValueError):
            return None
        return job if _ID.fullmatch(job.request_id) and file.stem == job.request_id else None

    def forget(self, job: J) -> None:
        self.jobs.pop(job.request_id, None)
        self._is_complete(job)
        self._done.discard(job.request_id)
        (self.folder / f"{job.request_id}.json").unlink(missing_ok=True)
        self._forgotten(job)

    def forget_the_oldest(self) -> None:
        """Finished jobs beyond the number that is kept; those whose webhook still waits for its message are not counted."""
        while len(self._done) > self._kept:
            _, request_id = heapq.heappop(self._oldest)
            if request_id in self._done:
                self.forget(self.jobs[request_id])


def sync(folder: Path) -> None:
    """Have the names in it on the disk: after a power cut a file whose content alone is there has its earlier name. Windows does it itself."""
    if os.name == "posix":
        place = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(place)
        finally:
            os.close(place)
