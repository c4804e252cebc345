"""Requests in their life from submitted to completed, and the folder in which they outlive the server."""

import asyncio
import json
import math
import os
import re
import secrets
import time
import uuid
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from .errors import ApiError

IN_QUEUE, IN_PROGRESS, COMPLETED = "IN_QUEUE", "IN_PROGRESS", "COMPLETED"
KEPT = 1000  # finished jobs; then the oldest are forgotten
MAX_LOG_LINES = 2000
JAVASCRIPT_SAFE = 2**53  # numbers above are not exact there
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass
class Answer:
    """What the result address gives: an HTTP status, a body and headers."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, error: ApiError) -> "Answer":
        return cls(error.status, error.body(), error.headers())


@dataclass
class Job:
    """One request. `owner` tells keys apart without being one; times are seconds since 1970; `answer` is there once it is COMPLETED."""

    owner: str
    prompt: str
    seed: int
    webhook: str | None = None
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = IN_QUEUE
    created: float = field(default_factory=time.time)
    started: float | None = None
    finished: float | None = None
    logs: list[dict[str, str]] = field(default_factory=list)
    answer: Answer | None = None

    def __post_init__(self) -> None:
        self.done = asyncio.Event()
        self.queued = self.unwanted = False  # whether ComfyUI's queue has had it, and whether its client wants it no longer

    def say(self, message: str, level: str = "INFO", source: str = "wan22") -> None:
        """A log line; beyond MAX_LOG_LINES nothing is kept."""
        if len(self.logs) < MAX_LOG_LINES:
            self.logs.append({"message": message, "level": level, "source": source, "timestamp": datetime.now(timezone.utc).isoformat()})

    def start(self) -> None:
        if self.status == IN_QUEUE:
            self.status, self.started = IN_PROGRESS, time.time()

    def complete(self, answer: Answer) -> None:
        self.status, self.answer, self.finished = COMPLETED, answer, time.time()
        self.done.set()

    @property
    def failed(self) -> bool:
        return self.answer is not None and self.answer.status >= 400

    def failure(self) -> dict[str, str]:
        """What a status says of an answer that is an error."""
        if self.answer is None or not self.failed:
            return {}
        detail = self.answer.body["detail"]
        return {"error": detail, "error_type": self.answer.body["error_type"]} if isinstance(detail, str) else {
            "error": "; ".join(entry["msg"] for entry in detail), "error_type": detail[0]["type"]}

    def metrics(self) -> dict[str, float]:
        """Seconds that the work took."""
        return {"inference_time": self.finished - self.started} if self.finished and self.started else {}


_KEPT_JOB = TypeAdapter(Job)


def random_seed() -> int:
    return secrets.randbelow(JAVASCRIPT_SAFE)


class JobFolder:
    """A file per job, each written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @classmethod
    def claimed(cls, parent: Path) -> "JobFolder":
        """The first of requests, requests_2, ... that no other running server has, so that none ends another's jobs when it starts."""
        names = ("requests", *(f"requests_{number}" for number in range(2, 100)))
        return next(folder for folder in map(cls, map(parent.joinpath, names)) if folder._claim())

    def _claim(self) -> bool:
        self._lock = FileLock(self.folder / ".lock")  # held until the process ends
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        except (OSError, NotImplementedError):
            pass  # this file system has no locks
        return True

    def keep(self, job: Job) -> None:
        """OSError where the disk is full or the folder read-only."""
        written = self.folder / f"{job.request_id}.{secrets.token_hex(4)}.part"
        try:
            written.touch(mode=0o600)  # webhooks are secrets
            with written.open("w", encoding="utf-8") as file:
                json.dump(asdict(job), file)
                file.flush()
                os.fsync(file.fileno())
            written.replace(self.folder / f"{job.request_id}.json")
        finally:
            written.unlink(missing_ok=True)

    def restored(self) -> dict[str, Job]:
        """Every job of before, the newest KEPT of them, without an answer where it was not complete. Damaged files are left out."""
        for part in self.folder.glob("*.part"):
            part.unlink(missing_ok=True)
        jobs = sorted(filter(None, map(_read, self.folder.glob("*.json"))), key=lambda job: job.finished or math.inf)
        for job in jobs[:-KEPT]:
            self.forget(job)
        for job in jobs[-KEPT:]:
            if job.answer is not None:
                job.done.set()
        return {job.request_id: job for job in jobs[-KEPT:]}

    def forget(self, job: Job) -> None:
        (self.folder / f"{job.request_id}.json").unlink(missing_ok=True)


def _read(file: Path) -> Job | None:
    try:
        job = _KEPT_JOB.validate_json(file.read_bytes())
    except (OSError, ValueError):
        return None
    return job if _ID.fullmatch(job.request_id) and file.stem == job.request_id else None
