"""Workers that are none: they take as long as they are told, answer as the prompt says, and end when a test wants it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from cluster.attempts import Attempt, Begun, Ended, Event, Introduction, LogLine, Piece, WorkerLost
from cluster.gateway.dispatch import Dispatcher
from nodes.api.errors import Cancelled, ContentPolicyViolation, InternalError
from nodes.api.jobs.job import Answer

LORAS = ("style.safetensors", "folder/motion.safetensors")


def video(attempt: Attempt) -> bytes:
    """What comes of a request, always the same."""
    return hashlib.sha256(f"{attempt.request['prompt']} {attempt.request['seed']}".encode()).digest() * 8


@dataclass
class SimulatedPool:
    """`seconds` is how long a job takes; while `held`, none ends. `attempts` are all that began, in order, with their workers."""

    seconds: float = 0.0
    lines: int = 1
    attempts: list[tuple[str, Attempt]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()
        self._ends: dict[str, asyncio.Future[str]] = {}  # by worker: how its attempt ends before its time

    def join(self, dispatcher: Dispatcher, *names: str, loras: tuple[str, ...] = LORAS) -> None:
        for name in names:
            dispatcher.appear(name, Introduction("host", "simulated", name, "1", "1", loras=loras))

    def kill(self, worker: str) -> None:
        if worker in self._ends and not self._ends[worker].done():
            self._ends[worker].set_result("lost")

    async def run(self, worker: str, attempt: Attempt) -> AsyncIterator[Event]:
        assert worker not in self._ends, "one job at a time"
        self.attempts.append((worker, attempt))
        self._ends[worker] = end = asyncio.get_running_loop().create_future()
        try:
            yield Begun()
            for line in range(self.lines):
                yield LogLine(f"Sampler: {line + 1} of {self.lines}")
                await self._wait(end, self.seconds / self.lines)
            yield self._answer(attempt, content := video(attempt))
            for begin in range(0, len(content), 100):
                yield Piece(content[begin:begin + 100])
            yield Ended(self._good(attempt, content))
        except _Over as over:
            yield over.event
        finally:
            del self._ends[worker]

    async def _wait(self, end: "asyncio.Future[str]", seconds: float) -> None:
        held: asyncio.Future[Any] = asyncio.ensure_future(self.free.wait())
        await asyncio.wait([held, end], return_when=asyncio.FIRST_COMPLETED)
        if not end.done():
            await asyncio.wait([end], timeout=seconds)
        held.cancel()
        if end.done():
            if end.result() == "lost":
                raise WorkerLost("a test ended it")
            raise _Over(Ended(Answer.of(Cancelled())))

    def _answer(self, attempt: Attempt, content: bytes) -> Event:
        prompt = attempt.request["prompt"]
        if "kills" in prompt:
            raise WorkerLost("the job ended it")
        if "fails" in prompt:
            raise _Over(Ended(Answer.of(InternalError("Sampler: it failed."))))
        if "unsafe" in prompt:
            raise _Over(Ended(Answer.of(ContentPolicyViolation(prompt, "unsafe 0.97"))))
        return LogLine(f"Save Video: {len(content)} bytes")

    def _good(self, attempt: Attempt, content: bytes) -> Answer:
        file = {"url": "http://worker/view", "content_type": "video/mp4", "file_name": "clip.mp4", "file_size": len(content)}
        return Answer(200, {"video": file, "prompt": attempt.request["prompt"], "seed": attempt.request["seed"]})

    async def cancel(self, worker: str, attempt: Attempt) -> None:
        self.cancelled.append(attempt.lease)
        if worker in self._ends and not self._ends[worker].done():
            self._ends[worker].set_result("cancelled")


class _Over(Exception):
    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event = event
