"""A rolling restart of all workers, one at a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from nodes.engine.log import log


class RollingRestart:
    """Begun when somebody asks for it, unless it runs."""

    def __init__(self, restart_all: Callable[[], Awaitable[None]]) -> None:
        self._restart_all, self._began = restart_all, 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def seconds(self) -> float | None:
        """How long it has run; None while none does."""
        return None if self._task is None or self._task.done() else round(time.monotonic() - self._began, 1)

    def begin(self) -> bool:
        """Whether it begins now: another one may run."""
        if self.seconds is not None:
            return False
        self._began, self._task = time.monotonic(), asyncio.create_task(self._run())
        return True

    async def _run(self) -> None:
        try:
            await self._restart_all()
        except Exception:  # noqa: BLE001 nobody waits for it
            log.exception("The rolling restart ended before its end. Ask for it again.")
