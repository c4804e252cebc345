"""Requests in their life from submitted to completed."""

import asyncio
import secrets
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from .errors import ApiError

IN_QUEUE, IN_PROGRESS, COMPLETED = "IN_QUEUE", "IN_PROGRESS", "COMPLETED"
MAX_LOG_LINES = 2000
JAVASCRIPT_SAFE = 2**53  # numbers above are not exact there


@dataclass
class Answer:
    """What the result address gives: an HTTP status, a body and headers; of an error also its text and its name, as a status repeats them."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    error: str = ""
    error_type: str = ""

    @classmethod
    def of(cls, error: ApiError) -> "Answer":
        return cls(error.status, error.body(), error.headers(), error.text, error.error_type)


@dataclass
class Job:
    """One request. `owner` tells keys apart without being one; times are seconds since 1970; `answer` is there once it is COMPLETED; `webhook` is
    there until it has had its message; `video` is a path below ComfyUI's output folder."""

    owner: str
    seed: int
    webhook: str | None = None
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    status: str = IN_QUEUE
    started: float | None = None
    finished: float | None = None
    logs: list[dict[str, str]] = field(default_factory=list)
    answer: Answer | None = None
    video: str | None = None

    def __post_init__(self) -> None:
        self.done = asyncio.Event()
        self.queued = self.unwanted = False  # whether ComfyUI's queue has had it, and whether its client wants it no longer

    def say(self, message: str, level: str = "INFO", source: str = "wan22") -> None:
        """A log line; beyond MAX_LOG_LINES nothing is kept."""
        if len(self.logs) < MAX_LOG_LINES:
            self.logs.append({"message": message, "level": level, "source": source, "timestamp": datetime.now(timezone.utc).isoformat()})

    def start(self) -> None:
        """It is computed now; before, whatever it waits for, it is IN_QUEUE."""
        if self.status == IN_QUEUE:
            self.status, self.started = IN_PROGRESS, time.time()

    def complete(self, answer: Answer) -> None:
        self.status, self.answer, self.finished = COMPLETED, answer, time.time()
        self.done.set()

    @property
    def failed(self) -> bool:
        return self.answer is not None and self.answer.status >= 400

    def metrics(self) -> dict[str, float]:
        """Seconds that the work took."""
        return {"inference_time": self.finished - self.started} if self.finished and self.started else {}


def random_seed() -> int:
    return secrets.randbelow(JAVASCRIPT_SAFE)
