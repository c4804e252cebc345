"""A seat for a worker: whoever is taken for lost and is not comes back, and an actor that Ray has given up is made again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from gateways import until
from ray.exceptions import ActorDiedError, ActorUnavailableError

from cluster.attempts import Attempt, Introduction, WorkerLost
from cluster.gateway.dispatch import Dispatcher
from cluster.gateway.line import WaitingLine
from cluster.on_ray import pool as module
from cluster.on_ray.pool import RayPool, Seat, _attend
from nodes.api.version import version_on_disk


class Method:
    def __init__(self, does: Any) -> None:
        self.remote = does


class Actor:
    """As a handle of Ray's: alive, or given up."""

    def __init__(self, dead: bool = False) -> None:
        self.dead, self.watched = dead, asyncio.Event()
        self.introduce, self.loading, self.change, self.begin = [
            Method(each) for each in (self._introduce, self._loading, self._change, self._begin)]

    async def _introduce(self) -> Introduction:
        if self.dead:
            raise ActorDiedError
        return Introduction("host", "gpu", "process", version_on_disk(), version_on_disk())

    async def _loading(self) -> list[str]:
        return []

    async def _change(self, about: Introduction) -> Introduction:
        await self.watched.wait()
        self.watched.clear()
        return about

    async def _begin(self, attempt: Attempt) -> None:
        raise ActorUnavailableError("it is started again", None)


@contextlib.asynccontextmanager
async def attended(seat: Seat, dispatcher: Dispatcher) -> AsyncIterator[None]:
    task = asyncio.create_task(_attend(seat, dispatcher))
    try:
        yield
    finally:
        task.cancel()


def nobody() -> Dispatcher:
    async def start(request_id: str, worker: Any) -> None:
        raise AssertionError("there are no jobs")
    return Dispatcher(WaitingLine(), lambda request_id: pytest.fail("there are no jobs"), start)


def test_who_was_taken_for_lost_and_is_not_comes_back() -> None:
    async def use() -> None:
        actor, dispatcher = Actor(), nobody()
        async with attended(Seat("w", actor, Actor), dispatcher):
            await until(lambda: "w" in dispatcher.workers)
            dispatcher.vanish(dispatcher.workers["w"])
            actor.watched.set()
            await until(lambda: "w" in dispatcher.workers)
    asyncio.run(use())


def test_an_actor_that_is_given_up_is_named_and_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> None:
        monkeypatch.setattr(module, "FAILED_AGAIN", 0.05)
        dispatcher, seat = nobody(), Seat("w", Actor(dead=True), Actor)
        async with attended(seat, dispatcher):
            await until(lambda: seat.failed or seat.worker is not None)
            await until(lambda: "w" in dispatcher.workers)
    asyncio.run(use())


def test_who_is_started_again_already_is_not_killed_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> None:
        pool = RayPool(1, True, {})
        pool.seats["w"] = Seat("w", Actor(), Actor)
        monkeypatch.setattr("ray.kill", lambda *arguments, **more: pytest.fail("a second restart"))
        with pytest.raises(WorkerLost):
            async for _ in pool.run("w", Attempt("request", "lease", {})):
                pass
    asyncio.run(use())


def test_a_pack_that_is_just_replaced_ends_no_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced() -> str:
        raise FileNotFoundError("pyproject.toml")

    async def use() -> None:
        monkeypatch.setattr(module, "FAILED_AGAIN", 0.05)
        monkeypatch.setattr("ray.kill", lambda *arguments, **more: None)
        monkeypatch.setattr(module, "version_on_disk", replaced)
        dispatcher, seat = nobody(), Seat("w", Actor(), Actor)
        async with attended(seat, dispatcher):
            await until(lambda: seat.failed and "pyproject.toml" in seat.state)
            monkeypatch.setattr(module, "version_on_disk", version_on_disk)
            await until(lambda: "w" in dispatcher.workers)
    asyncio.run(use())


def test_a_worker_with_other_settings_is_another_one() -> None:
    """Those of an earlier gateway stay where nothing changed; one that kept the models of before would be asked for ever."""
    pools = [RayPool(1, on_cpu, {"models": {"vae": vae}}) for on_cpu, vae in ((False, "a"), (False, "a"), (False, "b"), (True, "a"))]
    names = [pool.actor_name("worker_1") for pool in pools]
    assert names[0] == names[1] and len(set(names)) == 3
