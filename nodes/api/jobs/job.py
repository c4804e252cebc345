"""One request in its life from submitted to completed."""

import asyncio
import contextlib
import secrets
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..errors import ApiError
from ..headers import Preferences

IN_QUEUE, IN_PROGRESS, COMPLETED = "IN_QUEUE", "IN_PROGRESS", "COMPLETED"
MAX_LOG_LINES = 2000
NOT_KEPT = "The request came with X-Fal-Store-IO: 0, so what was said of it is not kept."
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
    preferences: Preferences = Preferences()

    def __post_init__(self) -> None:
        self.done = asyncio.Event()
        self.onlookers, self.picture = 0, ""  # who looks at its video while it is made, and what they see: the data URL of a small moving picture
        self.queued = self.unwanted = self.late = False  # whether ComfyUI's queue has had it, its client wants it no longer, its start came too late

    def say(self, message: str, level: str = "INFO", source: str = "wan22") -> None:
        """A log line; beyond MAX_LOG_LINES nothing is kept."""
        if len(self.logs) < MAX_LOG_LINES:
            self.logs.append({"message": message, "level": level, "source": source, "timestamp": datetime.now(timezone.utc).isoformat()})

    @contextlib.contextmanager
    def looked_at(self) -> Iterator[None]:
        """Somebody looks while this is entered."""
        self.onlookers += 1
        try:
            yield
        finally:
            self.onlookers -= 1

    def looks(self) -> bool:
        return self.onlookers > 0

    def show(self, picture: str) -> None:
        """In place of the one before; kept in memory alone, and only for who looks. It is called in any thread."""
        self.picture = picture if self.looks() and self.answer is None else ""

    def start(self) -> None:
        """It is computed now; before, whatever it waits for, it is IN_QUEUE."""
        if self.status == IN_QUEUE:
            self.status, self.started = IN_PROGRESS, time.time()

    def complete(self, answer: Answer) -> None:
        self.status, self.answer, self.finished, self.picture = COMPLETED, answer, time.time(), ""
        self.done.set()

    def record(self) -> dict[str, Any]:
        """What is kept of it on the disk; of a private one no text that its client wrote or that was made of that."""
        record = asdict(self)
        if self.preferences.private:
            record["logs"] = []
            if self.answer is not None:
                record["answer"] |= {"body": _without_text(self.answer.body), "error": ""}
        return record

    @property
    def failed(self) -> bool:
        return self.answer is not None and self.answer.status >= 400

    def metrics(self) -> dict[str, float]:
        """Seconds that the work took."""
        return {"inference_time": self.finished - self.started} if self.finished and self.started else {}


def _without_text(body: dict[str, Any]) -> dict[str, Any]:
    """The body of an answer, an error's too, without the prompt, and without sentences: they may repeat the prompt or say what is in it."""
    if isinstance(details := body.get("detail"), list):
        return {"detail": [{**{name: value for name, value in detail.items() if name in ("loc", "type", "url")}, "msg": NOT_KEPT}
                           for detail in details]}
    if "detail" in body:
        return {**body, "detail": NOT_KEPT}
    return {**body, "prompt": ""} if "prompt" in body else body


def random_seed() -> int:
    return secrets.randbelow(JAVASCRIPT_SAFE)
