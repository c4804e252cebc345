"""Who gets the next job: the first in line, on a free worker, a warm one if there is one."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..attempts import Introduction
from .line import WaitingLine


@dataclass(frozen=True)
class Needs:
    """What a job asks of its worker: the stack that a warm one has loaded, and LoRA files that it must have; `shown` is the stack for people."""

    stack: str = ""
    loras: frozenset[str] = frozenset()
    shown: tuple[str, ...] = ()


@dataclass
class Worker:
    """A worker as the gateway sees it; `stack` is what it ran last, None before its first job, and `shown` the same for people; `since` is when it
    became free or busy, on the monotonic clock; one that is `leaving` gets no further job."""

    name: str
    about: Introduction
    stack: str | None = None
    shown: tuple[str, ...] = ()
    job: str | None = None
    since: float = 0.0
    leaving: bool = False


class Dispatcher:
    """Hands jobs to workers until it is stopped. `start` runs one job on one worker to its end and never raises.

    Only the first in line is looked at: a job is never overtaken because its worker is not warm, and never waits while a worker is free that has
    its files. One whose files no worker has gets any worker, whose ComfyUI then says so.
    """

    def __init__(self, line: WaitingLine, needs: Callable[[str], Needs], start: Callable[[str, Worker], Awaitable[None]]) -> None:
        self.line, self.workers = line, dict[str, Worker]()
        self.loras: frozenset[str] = frozenset()  # files that a worker has, or had when it was last there
        self.known: dict[str, Introduction] = {}  # of every worker that has ever been there
        self.warm = self.handed_out = 0  # jobs on a worker that had their stack, and all
        self._needs, self._start = needs, start
        self._news, self._running = asyncio.Event(), set[asyncio.Task[None]]()

    def look(self) -> None:
        """A job came, or a worker did or is free."""
        self._news.set()

    def appear(self, name: str, about: Introduction) -> Worker:
        """A worker that takes jobs from now on: a new one, with nothing loaded yet, also where it has the name of an earlier one."""
        self.workers[name] = worker = Worker(name, about, since=time.monotonic())
        self.inform(worker, about)
        return worker

    def inform(self, worker: Worker, about: Introduction) -> None:
        """What a worker says of itself now: another LoRA may be there."""
        worker.about = self.known[worker.name] = about
        self.loras = frozenset().union(*(each.loras for each in self.known.values()))
        self.look()

    def vanish(self, worker: Worker) -> None:
        """This worker takes no more jobs; what runs on it ends by itself, as lost. One that came under its name since stays."""
        if self.workers.get(worker.name) is worker:
            del self.workers[worker.name]

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while (request_id := self.line.first()) is not None and (worker := self._worker_for(needs := self._needs(request_id))) is not None:
                self.line.leave(request_id)
                self.warm, self.handed_out = self.warm + (worker.stack == needs.stack), self.handed_out + 1
                worker.job, worker.stack, worker.shown, worker.since = request_id, needs.stack, needs.shown, time.monotonic()
                task = asyncio.create_task(self._use(worker, request_id))
                self._running.add(task)
                task.add_done_callback(self._running.discard)

    async def _use(self, worker: Worker, request_id: str) -> None:
        try:
            await self._start(request_id, worker)
        finally:
            worker.job, worker.since = None, time.monotonic()
            self.look()

    def _worker_for(self, needs: Needs) -> Worker | None:
        """Warm before empty before others; among equals the one that has been free longest."""
        able = [worker for worker in self.workers.values() if needs.loras <= set(worker.about.loras)] or list(self.workers.values())
        free = [worker for worker in able if worker.job is None and not worker.leaving]
        return min(free, key=lambda worker: (worker.stack != needs.stack, worker.stack is not None, worker.since), default=None)
