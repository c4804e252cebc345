"""One video at a time, for whoever goes on asking how it is: an attempt of which nobody asks for a while is orphaned, and stops."""

import asyncio
import contextlib
import time

import aiohttp

from ..attempts import Attempt, Ended, Event
from .client import Broken, Client

ASKED_EVERY = 5.0  # seconds; so long an answer waits for something to say
LEASE_SECONDS = 20.0  # unasked for
HELD_EVENTS = 8  # a piece is a megabyte
STOPS_WITHIN = 120.0  # seconds from its cancel to its end: a step, a frame, a file


class LeaseOver(Exception):
    """The attempt that is asked for is not, or no more, this worker's."""


class Run:
    """An attempt under way."""

    def __init__(self, client: Client, attempt: Attempt) -> None:
        self.attempt, self._client = attempt, client
        self._events: asyncio.Queue[Event | Broken] = asyncio.Queue(HELD_EVENTS)
        self._asked, self._unwanted, self._stopped, self._id = time.monotonic(), False, False, ""
        self._task = asyncio.create_task(self._make())
        self._watch = asyncio.create_task(self._stop_when_orphaned())

    async def events(self) -> list[Event]:
        """What happened since the last call, as soon as something has, or nothing after a while. Broken where there is no way on, LeaseOver where
        it was stopped: pieces are lost then, and its end is no answer to anybody."""
        self._asked = time.monotonic()
        try:
            news = [] if self._stopped else [await asyncio.wait_for(self._events.get(), ASKED_EVERY)]
        except asyncio.TimeoutError:
            return []
        if self._stopped:
            raise LeaseOver(self.attempt.lease)
        while not self._events.empty():
            news.append(self._events.get_nowait())
        self._asked = time.monotonic()
        if isinstance(news[-1], Broken):
            raise news[-1]
        return [event for event in news if not isinstance(event, Broken)]

    async def cancel(self) -> None:
        """Its ComfyUI is told now, or as soon as it has it: what is submitted is never torn in the middle, or it would run on unseen."""
        self._unwanted = True
        if self._id:
            with contextlib.suppress(aiohttp.ClientError, asyncio.TimeoutError):
                await self._client.cancel(self._id)

    async def stop(self) -> None:
        """Cancel it, and return once its ComfyUI is free."""
        self._stopped = True
        await self.cancel()
        while not self._task.done():
            with contextlib.suppress(asyncio.QueueEmpty):  # nobody reads any more, and a full queue would hold it up
                self._events.get_nowait()
            await asyncio.wait([self._task], timeout=0.05)

    async def _make(self) -> None:
        try:
            submitted = await self._client.submit(self.attempt)
            if not isinstance(submitted, str):
                await self._events.put(Ended(submitted))
                return
            self._id = submitted
            if self._unwanted:
                await self.cancel()
            async for event in self._client.follow(self._id):
                await self._events.put(event)
        except Exception as error:  # noqa: BLE001 whatever it was, who asks must not wait for ever
            await self._events.put(Broken(f"{type(error).__name__}: {error}"))

    async def _stop_when_orphaned(self) -> None:
        while time.monotonic() - self._asked < LEASE_SECONDS:
            if self._task.done():
                return
            await asyncio.sleep(LEASE_SECONDS / 20)
        await self.stop()


class Worker:
    """What a worker does once its ComfyUI runs."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._run: Run | None = None
        self._cancelled: set[str] = set()  # leases whose cancel came before them
        self._lock = asyncio.Lock()

    async def begin(self, attempt: Attempt) -> None:
        """Start an attempt; what still runs for somebody else is stopped first."""
        async with self._lock:
            await self._stop()
            self._run = Run(self.client, attempt)
            if attempt.lease in self._cancelled:
                await self._run.cancel()
            self._cancelled.clear()

    async def events(self, lease: str) -> list[Event]:
        """See Run. LeaseOver for another attempt than the one under way."""
        if self._run is None or self._run.attempt.lease != lease:
            raise LeaseOver(lease)
        return await self._run.events()

    async def cancel(self, lease: str) -> None:
        if self._run is not None and self._run.attempt.lease == lease:
            await self._run.cancel()
        else:
            self._cancelled.add(lease)

    async def clear(self) -> None:
        """Nothing runs afterwards."""
        async with self._lock:
            await self._stop()

    async def _stop(self) -> None:
        if self._run is not None:
            await asyncio.wait_for(self._run.stop(), STOPS_WITHIN)
            self._run = None
