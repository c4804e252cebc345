"""The folder in which requests outlive the server: a file per job, each written whole or not at all."""

import asyncio
import json
import math
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from .errors import NotFound
from .jobs import Job

KEPT = 1000  # finished jobs; then the oldest are forgotten
MOST_SERVERS = 99  # on one folder
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STORED_JOB = TypeAdapter(Job)


class JobStore:
    """All jobs of a server by their id, in memory and in `folder`; of the finished ones the newest `kept`, and `forgotten` is told of the others."""

    def __init__(self, folder: Path, kept: int = KEPT, forgotten: Callable[[Job], None] = lambda job: None) -> None:
        self.folder, self._kept, self._forgotten = folder, kept, forgotten
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(folder / ".lock")  # held until the process ends
        self.jobs: dict[str, Job] = {}

    @classmethod
    def claimed(cls, parent: Path, kept: int = KEPT, forgotten: Callable[[Job], None] = lambda job: None) -> "JobStore":
        """The first of requests, requests_2, ... that no other running server has, so that none ends another's jobs when it starts."""
        for number in range(1, MOST_SERVERS + 1):
            store = cls(parent / ("requests" if number == 1 else f"requests_{number}"), kept, forgotten)
            if store._claim():
                store.restore()
                return store
        raise OSError(f"{MOST_SERVERS} servers keep their requests in {parent} already.")

    def _claim(self) -> bool:
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
        stored = filter(None, map(_read, self.folder.glob("*.json")))
        self.jobs = {job.request_id: job for job in sorted(stored, key=lambda job: job.finished or math.inf)}
        for job in self.jobs.values():
            if job.answer is not None:
                job.done.set()
        self.forget_the_oldest()

    def job(self, request_id: str, owner: str) -> Job:
        """NotFound for what is not there, and for what is another key's."""
        job = self.jobs.get(request_id)
        if job is None or job.owner != owner:
            raise NotFound(f"Request {request_id[:64]}")
        return job

    def waiting(self, owner: str) -> int:
        """How many jobs of this owner are not complete."""
        return sum(job.owner == owner and job.answer is None for job in self.jobs.values())

    async def keep(self, job: Job) -> None:
        """Have its file on the disk, written in a thread. OSError where the disk is full or the folder read-only."""
        await asyncio.to_thread(self._write, job.request_id, json.dumps(job.record()))

    def _write(self, request_id: str, text: str) -> None:
        written = self.folder / f"{request_id}.{secrets.token_hex(4)}.part"
        try:
            written.touch(mode=0o600)  # webhooks are secrets
            with written.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            written.replace(self.folder / f"{request_id}.json")
        finally:
            written.unlink(missing_ok=True)

    def forget(self, job: Job) -> None:
        self.jobs.pop(job.request_id, None)
        (self.folder / f"{job.request_id}.json").unlink(missing_ok=True)
        self._forgotten(job)

    def forget_the_oldest(self) -> None:
        """Finished jobs beyond the number that is kept; those whose webhook still waits for its message are not counted."""
        finished = sorted((job for job in self.jobs.values() if job.finished and not job.webhook), key=lambda job: job.finished or 0)
        for job in finished[: max(0, len(finished) - self._kept)]:
            self.forget(job)


def _read(file: Path) -> Job | None:
    try:
        job = _STORED_JOB.validate_json(file.read_bytes())
    except (OSError, ValueError):
        return None
    return job if _ID.fullmatch(job.request_id) and file.stem == job.request_id else None
