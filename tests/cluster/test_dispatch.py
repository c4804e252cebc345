"""Who gets the next job: the first in line, on a worker with its stack, else on one with nothing yet, else on the one that is free longest."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from cluster.attempts import Introduction
from cluster.gateway.dispatch import Dispatcher, Needs, Worker
from cluster.gateway.line import WaitingLine


class Jobs:
    """Jobs that run until they are let go."""

    def __init__(self) -> None:
        self.needs: dict[str, Needs] = {}
        self.ran: list[tuple[str, str]] = []
        self.running: dict[str, asyncio.Event] = {}
        self.dispatcher = Dispatcher(WaitingLine(), self.needs.__getitem__, self.start)

    async def start(self, job: str, worker: Worker) -> None:
        self.ran.append((job, worker.name))
        self.running[job] = asyncio.Event()
        await self.running[job].wait()
        del self.running[job]

    def add(self, name: str, stack: str = "", *loras: str, priority: int = 0) -> None:
        self.needs[name] = Needs(stack, frozenset(loras))
        self.dispatcher.line.join(name, priority, len(self.needs))
        self.dispatcher.look()

    def appear(self, name: str, *loras: str) -> Worker:
        return self.dispatcher.appear(name, Introduction("host", "gpu", name, "1", "1", loras=loras))

    async def end(self, job: str) -> None:
        self.running[job].set()
        await settle()


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def dispatching(*workers: str) -> AsyncIterator[Jobs]:
    jobs = Jobs()
    task = asyncio.create_task(jobs.dispatcher.run())
    for name in workers:
        jobs.appear(name)
    yield jobs
    for job in list(jobs.running):
        await jobs.end(job)
    task.cancel()


def test_first_come_first_served_within_a_priority() -> None:
    async def use() -> None:
        async with dispatching("w") as jobs:
            jobs.add("running")
            await settle()
            for name in "abc":
                jobs.add(name, priority=-1)
            for name in "de":
                jobs.add(name)
            await settle()
            for name in ("running", "d", "e", "a", "b"):
                await jobs.end(name)
            assert [job for job, _ in jobs.ran] == ["running", *"deabc"]
    asyncio.run(use())


def test_a_warm_worker_before_an_empty_one_before_others() -> None:
    async def use() -> None:
        async with dispatching("w1", "w2", "w3") as jobs:
            for name, stack in (("a", "red"), ("b", "blue")):
                jobs.add(name, stack)
                await settle()
            await jobs.end("a")
            await jobs.end("b")
            for name, stack in (("c", "blue"), ("d", "green"), ("e", "green")):  # w2 is warm, w3 is empty, w1 is what is left
                jobs.add(name, stack)
                await settle()
            assert dict(jobs.ran) == {"a": "w1", "b": "w2", "c": "w2", "d": "w3", "e": "w1"}
            assert (jobs.dispatcher.warm, jobs.dispatcher.handed_out) == (1, 5)
    asyncio.run(use())


def test_nobody_waits_while_a_worker_is_free() -> None:
    async def use() -> None:
        async with dispatching("w1", "w2") as jobs:
            jobs.add("a", "red")
            jobs.add("b", "red")  # its warm worker is busy
            await settle()
            assert set(jobs.running) == {"a", "b"}
    asyncio.run(use())


def test_a_job_waits_for_a_worker_that_has_its_file_and_is_not_overtaken() -> None:
    async def use() -> None:
        async with dispatching() as jobs:
            jobs.appear("has", "style.safetensors")
            jobs.add("long", "", "style.safetensors")
            await settle()
            jobs.appear("lacks")
            jobs.add("waits", "", "style.safetensors")
            jobs.add("behind")
            await settle()
            assert jobs.ran == [("long", "has")]
            await jobs.end("long")
            assert jobs.ran == [("long", "has"), ("waits", "has"), ("behind", "lacks")]
    asyncio.run(use())


def test_a_file_that_no_worker_has_any_more_holds_up_nobody() -> None:
    async def use() -> None:
        async with dispatching() as jobs:
            gone = jobs.appear("had", "style.safetensors")
            jobs.dispatcher.vanish(gone)
            jobs.add("a", "", "style.safetensors")
            await settle()
            assert "style.safetensors" in jobs.dispatcher.loras and not jobs.ran
            jobs.appear("lacks")
            await settle()
            assert jobs.ran == [("a", "lacks")]
    asyncio.run(use())


def test_who_leaves_or_vanished_gets_no_job_and_a_new_one_of_that_name_does() -> None:
    async def use() -> None:
        async with dispatching() as jobs:
            leaving = jobs.appear("leaving")
            leaving.leaving = True
            old = jobs.appear("w")
            jobs.dispatcher.vanish(old)
            jobs.add("a")
            await settle()
            assert not jobs.ran
            new = jobs.appear("w")
            jobs.dispatcher.vanish(old)  # said again, late
            await settle()
            assert jobs.ran == [("a", "w")] and jobs.dispatcher.workers["w"] is new
    asyncio.run(use())
