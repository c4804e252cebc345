"""Requests in their life from submitted to completed."""

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from .errors import ApiError
from .headers import Preferences

IN_QUEUE, IN_PROGRESS, COMPLETED = "IN_QUEUE", "IN_PROGRESS", "COMPLETED"
MAX_LOG_LINES = 2000
NOT_KEPT = "The request came with X-Fal-Store-IO: 0, so what was said of it is not kept."
JAVASCRIPT_SAFE = 2**53  # numbers above are not exact there
REPEAT_SECONDS = 20.0  # until a caller whose connection broke has called again: fal's clients pause for at most 10 s


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
        self.queued = self.unwanted = self.late = False  # whether ComfyUI's queue has had it, its client wants it no longer, its start came too late

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


@dataclass
class _Shared:
    """A job on its way, how many callers wait for it, and how many have left without it."""

    started: "asyncio.Task[Job]"
    callers: int = 0
    left: int = 0

    @property
    def has_failed(self) -> bool:
        return self.started.done() and (self.started.cancelled() or self.started.exception() is not None)


class Repeats:
    """Calls that wait for their video: the same call, sent again before it had its answer, gets the job of the first.

    Clients send a call again when a proxy or their own patience cut the connection (nginx after 60 s, Node after 300 s), three times and more.
    """

    def __init__(self) -> None:
        self._shared: dict[Hashable, _Shared] = {}

    @asynccontextmanager
    async def job(self, call: Hashable, start: Callable[[], Awaitable[Job]], cancel: Callable[[Job], None]) -> AsyncIterator[Job]:
        """The job that `start` begins, or the one that an equal `call` began. A caller that leaves by an error, and after whom nobody calls again
        within REPEAT_SECONDS, costs the job its `cancel`: nobody else knows its id."""
        shared = self._shared.get(call)
        if shared is None:
            shared = self._shared[call] = _Shared(asyncio.ensure_future(start()))
        shared.callers += 1
        try:
            yield await asyncio.shield(shared.started)
        except BaseException:  # a handler that is cancelled leaves too
            self._leave(call, shared, cancel)
            raise
        self._forget(call, shared)

    def _leave(self, call: Hashable, shared: _Shared, cancel: Callable[[Job], None]) -> None:
        shared.callers -= 1
        shared.left += 1
        if shared.has_failed:
            self._forget(call, shared)
        else:
            asyncio.get_running_loop().call_later(REPEAT_SECONDS, self._give_up, call, shared, shared.left, cancel)

    def _give_up(self, call: Hashable, shared: _Shared, left: int, cancel: Callable[[Job], None]) -> None:
        """The time of the caller that left as number `left` is over; with others there, or gone later, it is not the last."""
        if not shared.callers and shared.left == left and self._forget(call, shared):
            shared.started.add_done_callback(lambda _: None if shared.has_failed else _cancel(shared.started.result(), cancel))

    def _forget(self, call: Hashable, shared: _Shared) -> bool:
        """Whether it was still remembered."""
        return self._shared.get(call) is shared and self._shared.pop(call) is shared


def _cancel(job: Job, cancel: Callable[[Job], None]) -> None:
    if job.status != COMPLETED:
        cancel(job)


def random_seed() -> int:
    return secrets.randbelow(JAVASCRIPT_SAFE)
