"""A gateway on simulated workers, without a port and without Ray."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from simulated import SimulatedPool

from cluster.gateway.jobs import ClusterJob
from cluster.gateway.service import ClusterService
from cluster.settings import ClusterSettings
from nodes.api.contract import TextToVideoInput
from nodes.api.headers import Preferences

NONE, DEFAULTS = Preferences(), ClusterSettings()
SOON = 20.0  # seconds, on a machine that does other things too


class Gateway:
    """A running gateway; `stop` ends it as a power cut does, with nothing said to anybody."""

    def __init__(self, folder: Path, settings: ClusterSettings, pool: SimulatedPool) -> None:
        self.pool, self.service = pool, ClusterService(folder, settings, pool)
        self.task = asyncio.create_task(self.service.run())

    async def submit(self, prompt: str = "a fox", owner: str = "", webhook: str | None = None, preferences: Preferences = NONE,
                     **more: Any) -> ClusterJob:
        return await self.service.submit(TextToVideoInput(prompt=prompt, **more), owner, "http://gateway", webhook, preferences)

    async def stop(self) -> None:
        ours = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)
        self.service.store._lock.release()


@contextlib.asynccontextmanager
async def running(folder: Path, *workers: str, settings: ClusterSettings = DEFAULTS, seconds: float = 0.0) -> AsyncIterator[Gateway]:
    gateway = Gateway(folder, settings, SimulatedPool(seconds))
    gateway.pool.join(gateway.service.dispatcher, *workers)
    try:
        yield gateway
    finally:
        await gateway.stop()


async def until(condition: Callable[[], bool]) -> None:
    """asyncio.TimeoutError where it does not become true soon."""
    async def becomes_true() -> None:
        while not condition():
            await asyncio.sleep(0.005)
    await asyncio.wait_for(becomes_true(), SOON)


async def done(*jobs: ClusterJob) -> None:
    await asyncio.wait_for(asyncio.gather(*(job.done.wait() for job in jobs)), SOON)
