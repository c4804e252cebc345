"""Calls that wait for their video, and are sent again when their connection breaks."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .job import COMPLETED, Job

REPEAT_SECONDS = 20.0  # until a caller whose connection broke has called again: fal's clients pause for at most 10 s


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
