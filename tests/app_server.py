"""The API's HTTP edge on a port of this machine, without ComfyUI: its jobs run until a test lets them end."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import web
from wan22.api.app import App, answered_paths
from wan22.api.contract import Health, TextToVideoInput
from wan22.api.errors import Cancelled, NotFound
from wan22.api.jobs.job import Answer, Job
from wan22.api.settings import Settings
from wan22.api.uploads.storage import Uploads

T = TypeVar("T")


@dataclass
class Desk:
    """A service whose jobs wait, run and end as the test says; it keeps what it was asked for."""

    jobs: list[Job] = field(default_factory=list)
    asked: list[tuple[Any, ...]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)
    uploads: Any = None

    async def submit(self, request: TextToVideoInput, owner: str, *more: Any) -> Job:
        job = Job(owner, request.seed or 0)
        with self.changed:
            self.jobs.append(job)
            self.asked.append((request, owner, *more))
            self.changed.notify_all()
        return job

    def job(self, request_id: str, owner: str) -> Job:
        for job in self.jobs:
            if (job.request_id, job.owner) == (request_id, owner):
                return job
        raise NotFound(f"Request {request_id}")

    def cancel(self, job: Job) -> None:
        job.complete(Answer.of(Cancelled()))

    def queue_position(self, job: Job) -> int:
        return 0

    def health(self) -> Health:
        return Health(version="1", missing_models=[], missing_interpolators=[])

    def jwks(self) -> dict[str, Any]:
        return {"keys": []}

    def wait_for_jobs(self, number: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.jobs) >= number, timeout=60)


@dataclass
class Served:
    """A running server: its address, its service, and a way to do things in its event loop."""

    url: str
    desk: Desk
    app: App
    loop: asyncio.AbstractEventLoop

    def do(self, action: Callable[[], T]) -> T:
        async def call() -> T:
            return action()
        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(60)

    def finish(self, job: Job, **body: Any) -> None:
        video = {"url": f"{self.url}/view?filename=clip.mp4", "content_type": "video/mp4", "file_name": "clip.mp4", "file_size": 3}
        self.do(lambda: job.complete(Answer(200, {"video": video, "prompt": "a fox", "seed": job.seed, **body})))


@contextlib.contextmanager
def served(settings: Settings | None = None, uploads: Uploads | None = None) -> Iterator[Served]:
    """The API with these settings, on a port that is free."""
    loop, ready, desk = asyncio.new_event_loop(), threading.Event(), Desk(uploads=uploads)
    app = App(settings or Settings(enabled=True), desk)
    ports: list[int] = []

    async def begin() -> web.AppRunner:
        site = web.Application()
        for path in answered_paths():
            site.router.add_route("*", path, app.answer)
        runner = web.AppRunner(site, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        return runner

    async def end(runner: web.AppRunner) -> None:
        await runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}  # whoever waits for a caller to come back
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def run() -> None:
        runner = loop.run_until_complete(begin())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(end(runner))
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(60)
    try:
        yield Served(f"http://127.0.0.1:{ports[0]}", desk, app, loop)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
