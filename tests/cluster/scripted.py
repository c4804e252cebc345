"""A gateway with its pages, whose workers do what the test says, when it says so."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientSession

from cluster.attempts import Attempt, Begun, Ended, Event, Introduction, LogLine, Piece, WorkerLost
from cluster.gateway.dispatch import Dispatcher, Worker
from cluster.gateway.pages.routes import Pages
from cluster.gateway.server import listening, served
from cluster.gateway.service import ClusterService
from cluster.settings import ClusterSettings
from nodes.api.contract import TextToVideoInput
from nodes.api.headers import Preferences
from nodes.api.jobs.job import Answer

VIDEO = b"video" * 20
LORA = "style.safetensors"


def good_answer() -> Answer:
    file = {"url": "", "content_type": "video/mp4", "file_name": "Wan22_00001_.mp4", "file_size": len(VIDEO)}
    return Answer(200, {"video": file, "prompt": "", "seed": 1})


@dataclass
class Seat:
    name: str
    state: str = "waits for a GPU"
    worker: Worker | None = None
    failed: bool = False


@dataclass
class ScriptedPool:
    """Each attempt waits in `attempts` for the test, which tells its events; `restarts` are rolling restarts that wait for `restarted`."""

    seats: dict[str, Seat] = field(default_factory=dict)
    attempts: dict[str, "asyncio.Queue[Event | WorkerLost]"] = field(default_factory=dict)
    restarts: int = 0
    restarted: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, dispatcher: Dispatcher, name: str) -> Seat:
        self.seats[name] = seat = Seat(name, "ready")
        about = Introduction(f"host of {name}", "simulated GPU", name, "1", "1", loras=(LORA,))
        seat.worker = dispatcher.appear(name, about)
        return seat

    async def run(self, worker: str, attempt: Attempt) -> AsyncIterator[Event]:
        events = self.attempts.setdefault(worker, asyncio.Queue())
        while True:
            event = await events.get()
            if isinstance(event, WorkerLost):
                raise event
            yield event

    async def cancel(self, worker: str, attempt: Attempt) -> None:
        pass

    async def restart_all(self) -> None:
        self.restarts += 1
        await self.restarted.wait()

    def tell(self, worker: str, *events: Event | WorkerLost) -> None:
        for event in events:
            self.attempts.setdefault(worker, asyncio.Queue()).put_nowait(event)

    def make_video(self, worker: str) -> None:
        self.tell(worker, Begun(), LogLine("Sampler: 1 of 1"), Piece(VIDEO), Ended(good_answer()))


@dataclass
class Gateway:
    service: ClusterService
    pool: ScriptedPool
    client: ClientSession

    async def submit(self, prompt: str, loras: list[dict[str, Any]] | None = None, **preferences: Any) -> str:
        request = TextToVideoInput.model_validate({"prompt": prompt, "loras": loras or []})
        return (await self.service.submit(request, "", "", None, dataclasses.replace(Preferences(), **preferences))).request_id

    async def see(self) -> dict[str, Any]:
        async with self.client.get("/cluster") as reply:
            assert reply.status == 200
            return dict(await reply.json())

    async def metrics(self) -> str:
        async with self.client.get("/metrics") as reply:
            assert reply.status == 200
            return await reply.text()


@contextlib.asynccontextmanager
async def gateway(folder: Path, workers: int = 0, **settings: Any) -> AsyncIterator[Gateway]:
    """It answers meanwhile, on a free port."""
    pool = ScriptedPool()
    service = ClusterService(folder, ClusterSettings.model_validate(settings), pool)
    with contextlib.closing(listening("127.0.0.1", 0)) as door:
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
        async with served(service, door, Pages(service, pool).routes()), ClientSession(url) as client:
            for number in range(1, workers + 1):
                pool.add(service.dispatcher, f"worker_{number}")
            yield Gateway(service, pool, client)
