"""All workers, as actors that Ray places on the cluster's GPUs and starts again when they end."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from nodes.api.version import version_on_disk
from nodes.engine.log import log

from ..attempts import Attempt, Ended, Event, Introduction, WorkerLost
from ..gateway.dispatch import Dispatcher, Worker
from ..worker.child import StartFailed
from ..worker.worker import STOPS_WITHIN
from .actor import WorkerActor

NAMESPACE, NAME = "wan22", "worker_"
RESOURCE = "wan22"  # hosts offer as many of it as they run workers
SILENCE = 30.0  # seconds: a worker that answers nothing for so long is started again
AGAIN = 1.0  # seconds between two calls to one that is not there
FAILED_AGAIN = 60.0  # ... to one that could not start
WRITES_WITHIN = 600.0  # ... that hashes a file of gigabytes
PIECE_BYTES = 2**20


@dataclass
class Seat:
    """A place for a worker, which may be empty: its actor, what makes it where there is none, and what it does there or why it is not there."""

    name: str
    actor: Any
    make: Callable[[], Any]
    state: str = "waits for a GPU"
    worker: Worker | None = None
    failed: bool = False


class RayPool:
    """`count` workers, each with a GPU of its own or all on the CPU, whose ComfyUIs have these settings of the API."""

    def __init__(self, count: int, on_cpu: bool, settings: dict[str, Any]) -> None:
        self._count, self._on_cpu, self._settings = count, on_cpu, settings
        self._kind = hashlib.sha256(json.dumps([settings, on_cpu], sort_keys=True).encode()).hexdigest()[:8]
        self.seats: dict[str, Seat] = {}

    async def run_workers(self, dispatcher: Dispatcher) -> None:
        """Have the workers appear at and vanish from the dispatcher, until this is cancelled. Those of an earlier gateway stay, warm as they are."""
        for number in range(1, self._count + 1):
            make = partial(self._actor, f"{NAME}{number}")
            self.seats[f"{NAME}{number}"] = Seat(f"{NAME}{number}", make(), make)
        self._dismiss_the_others()
        await asyncio.gather(*(_attend(seat, dispatcher) for seat in self.seats.values()))

    def actor_name(self, seat: str) -> str:
        """Ray's name of a seat's worker: another one where its settings are others, which it has for life."""
        return f"{seat}_{self._kind}"

    def _actor(self, seat: str) -> Any:
        needs = {"num_cpus": 0, "num_gpus": 0 if self._on_cpu else 1, "resources": {RESOURCE: 1}}
        return ray.remote(WorkerActor).options(name=self.actor_name(seat), namespace=NAMESPACE, lifetime="detached", get_if_exists=True,
                                               max_restarts=-1, max_concurrency=32, **needs).remote(self._settings, self._on_cpu)

    def _dismiss_the_others(self) -> None:
        """Workers of an earlier gateway that had more, or other settings."""
        own = set(map(self.actor_name, self.seats))
        for actor in ray.util.list_named_actors(all_namespaces=True):
            if actor["namespace"] == NAMESPACE and actor["name"] not in own:
                with contextlib.suppress(ValueError):
                    ray.kill(ray.get_actor(actor["name"], NAMESPACE))

    async def run(self, worker: str, attempt: Attempt) -> AsyncIterator[Event]:
        actor = self.seats[worker].actor
        try:
            await _send_files(actor, attempt)
            await _answer(actor.begin.remote(attempt), STOPS_WITHIN + SILENCE)
            while True:
                for event in await _answer(actor.events.remote(attempt.lease)):
                    yield event
                    if isinstance(event, Ended):
                        return
        except (asyncio.TimeoutError, RayError) as error:
            if not isinstance(error, RayActorError):  # one that does not answer as it should is better started anew; others are started already
                ray.kill(actor, no_restart=False)
            raise WorkerLost(_first_line(error) if isinstance(error, RayError) else "it did not answer in time") from None

    async def cancel(self, worker: str, attempt: Attempt) -> None:
        with contextlib.suppress(RayError):
            await self.seats[worker].actor.cancel.remote(attempt.lease)

    async def restart_all(self) -> None:
        """A new process for each worker, one after the other: each when its job is complete and the one before is there again."""
        for seat in self.seats.values():
            if (worker := seat.worker) is None:
                continue
            worker.leaving = True
            try:
                while worker.job is not None:
                    await asyncio.sleep(AGAIN)
                if seat.worker is worker:  # else it is a new one already
                    ray.kill(seat.actor, no_restart=False)
                while seat.worker is worker or seat.worker is None and not seat.failed:
                    await asyncio.sleep(AGAIN)
            finally:
                worker.leaving = False


async def _attend(seat: Seat, dispatcher: Dispatcher) -> None:
    """Introduce the seat's worker, wait for its end, and so on."""
    while True:
        try:
            about = await _introduced(seat)
            worker = dispatcher.appear(seat.name, about)
            seat.worker, seat.state, seat.failed = worker, "ready", False
            while dispatcher.workers.get(seat.name) is worker:  # its job may have taken it for lost
                about = await seat.actor.change.remote(about)
                dispatcher.inform(worker, about)
        except (RayError, StartFailed) as error:
            if seat.worker is not None:
                dispatcher.vanish(seat.worker)
            seat.worker, failed = None, isinstance(error, (StartFailed, ActorDiedError))
            if failed:
                _fail(seat, error)
            else:
                seat.state = "starts"
            await asyncio.sleep(FAILED_AGAIN if failed else AGAIN)


async def _introduced(seat: Seat) -> Introduction:
    loading = asyncio.create_task(_report(seat))
    try:
        about: Introduction = await seat.actor.introduce.remote()
    finally:
        loading.cancel()
    await asyncio.to_thread(check, about)
    for lack in about.lacks:
        log.warning("%s on %s: %s", seat.name, about.host, lack)
    return about


def _fail(seat: Seat, error: Exception) -> None:
    """Say why, once, and begin with a new process: what this one has imported may be what must change."""
    reason = str(error.cause if isinstance(error, RayTaskError) else error)
    if isinstance(error, ActorDiedError):  # for ever: somebody ended it, or its constructor failed; the last line of Ray's many says why
        reason = reason.strip().rpartition("\n")[2]
        seat.actor = seat.make()
    if seat.state != reason:
        log.error("%s cannot start: %s", seat.name, reason)
    seat.state, seat.failed = reason, True
    if not isinstance(error, ActorDiedError):
        with contextlib.suppress(RayError):
            ray.kill(seat.actor, no_restart=False)


async def _report(seat: Seat) -> None:
    with contextlib.suppress(RayError):
        while True:
            lines = await seat.actor.loading.remote()
            seat.state = f"starts: {lines[-1][:100]}" if lines else "starts"
            await asyncio.sleep(AGAIN)


async def _send_files(actor: Any, attempt: Attempt) -> None:
    for address in await _answer(actor.lacks.remote(list(attempt.files))) if attempt.files else ():
        file = Path(attempt.files[address])
        with file.open("rb") as content:
            while piece := await asyncio.to_thread(content.read, PIECE_BYTES):
                await _answer(actor.receive.remote(address, file.name, piece))
        await _answer(actor.receive.remote(address, file.name, b""), WRITES_WITHIN)


async def _answer(reference: Any, seconds: float = SILENCE) -> Any:
    """asyncio.TimeoutError for one that does not come."""
    async def value() -> Any:
        return await reference
    return await asyncio.wait_for(value(), seconds)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__


def check(about: Introduction) -> None:
    """StartFailed for a worker whose pack is another one than the gateway's now: after an update the workers come first, one after the other."""
    try:
        own = version_on_disk()
    except OSError as error:
        raise StartFailed(f"The pack of the gateway cannot be read just now ({error}): its update is under way.") from error
    for version, what in ((about.own_version, "worker"), (about.version, "ComfyUI")):
        if version != own:
            raise StartFailed(f"The pack in the {what} on {about.host} is {version}, the gateway's is {own}. Have the same commit on all hosts.")
