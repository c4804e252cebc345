"""Calls that wait for their video: who comes back in time gets the job of the call before, and a job that nobody comes back for is cancelled."""

import asyncio

import pytest
from wan22.api.errors import Cancelled
from wan22.api.jobs import repeats as module
from wan22.api.jobs.job import Job
from wan22.api.jobs.repeats import Repeats


def test_the_time_to_come_back_counts_from_the_last_caller_that_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPEAT_SECONDS", 0.4)
    cancelled: list[float] = []

    async def use() -> None:
        repeats, job, clock = Repeats(), Job("", 1), asyncio.get_running_loop().time

        async def start() -> Job:
            return job

        async def call(begin: float, end: float) -> None:
            await asyncio.sleep(begin)
            with pytest.raises(Cancelled):
                async with repeats.job("x", start, lambda job: cancelled.append(clock())):
                    await asyncio.sleep(end - begin)
                    raise Cancelled

        await asyncio.gather(call(0, 0), call(0.05, 0.3))
        left = clock()
        await asyncio.sleep(0.2)
        assert not cancelled, "the first one's time is over"
        await asyncio.sleep(0.4)
        assert len(cancelled) == 1 and cancelled[0] - left >= 0.3 and not repeats._shared

    asyncio.run(use())


@pytest.mark.parametrize("starts", [0.0, 0.15], ids=["while it waits", "while the job is begun"])
def test_a_handler_that_is_cancelled_leaves_no_job_behind(monkeypatch: pytest.MonkeyPatch, starts: float) -> None:
    monkeypatch.setattr(module, "REPEAT_SECONDS", 0.05)

    async def use() -> None:
        repeats, job, cancelled = Repeats(), Job("", 1), list[Job]()

        async def start() -> Job:
            await asyncio.sleep(starts)
            return job

        async def call() -> None:
            async with repeats.job("x", start, cancelled.append):
                await asyncio.sleep(60)

        task = asyncio.create_task(call())
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.3)
        assert cancelled == [job] and not repeats._shared

    asyncio.run(use())
