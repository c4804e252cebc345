"""The API's jobs on many workers: each waits in line, is tried on one worker, and on another one where that is lost, until it has its one answer."""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from nodes.api.contract import Health, LoRAWeight, TextToVideoInput, TextToVideoOutput
from nodes.api.errors import Cancelled, Detail, InternalError, InvalidRequest, QueueFull, StartTimeout
from nodes.api.headers import Preferences
from nodes.api.jobs.job import COMPLETED, IN_QUEUE, Answer, Job, random_seed
from nodes.api.jobs.messenger import Messenger
from nodes.api.jobs.store import JobStore
from nodes.api.uploads.storage import Uploads
from nodes.api.version import pack_version
from nodes.engine.fetch.download import Downloader
from nodes.engine.fetch.rules import DownloadRefused
from nodes.engine.fetch.sources import LocalFile, lora_source
from nodes.engine.log import log

from ..attempts import Attempt, Begun, Ended, Event, LogLine, Picture, Piece, Pool, WorkerLost
from ..settings import ClusterSettings
from .dispatch import Dispatcher, Worker
from .errors import Disconnected, NoWorkers
from .jobs import ClusterJob
from .line import WaitingLine
from .pace import Pace
from .videos import Arriving, Videos

STRIKES = 2  # workers that a job may lose
VIDEO_URL = "/videos/{request_id}/{file_name}"
SWEEP_SECONDS = 30.0  # between two looks for videos whose time is over


class ClusterService:
    """All requests of this gateway, kept in `folder`. It lives in one event loop, where `run` is to be awaited."""

    def __init__(self, folder: Path, settings: ClusterSettings, pool: Pool) -> None:
        """OSError for a folder that cannot be used, or that another gateway has."""
        self.settings, self._pool = settings, pool
        self.videos = Videos(folder / "videos", settings.results)
        self.store: JobStore[ClusterJob] = JobStore(folder / "requests", settings.kept_jobs, self._forget_video, ClusterJob)
        if not self.store.claim():
            raise OSError(f"{folder} belongs to a gateway that runs already. Stop it, or name another folder by --state.")
        self.line = WaitingLine()
        self.dispatcher = Dispatcher(self.line, lambda request_id: self.store.jobs[request_id].needs, self._try)
        self._uploads, self._downloader = Uploads(folder / "uploads", settings.uploads), Downloader(folder, settings.downloads)
        self._messenger = Messenger(folder, settings.webhooks, self._keep)
        self._attempts: dict[str, tuple[str, Attempt]] = {}  # which worker has which job
        self._timeouts: dict[str, asyncio.TimerHandle] = {}  # of jobs that must start in time
        self._start, self._tasks = secrets.token_hex(4), set[asyncio.Task[None]]()
        self.answers: Counter[int] = Counter()  # by HTTP status, since the start
        self.lost = 0  # workers under a job, since the start
        self.pace = Pace()
        self._take_up_what_is_left()

    async def run(self) -> None:
        """Hand out jobs until this is cancelled."""
        await asyncio.gather(self.dispatcher.run(), self._sweep())

    def _take_up_what_is_left(self) -> None:
        """By an earlier gateway: what was not complete waits where it did."""
        self.store.restore()
        self.videos.restore(self.store.jobs)
        for job in self.store.jobs.values():
            if job.answer is None:
                job.wait_again()
                self._wait(job)
            else:
                self._messenger.tell(job)

    async def submit(self, request: TextToVideoInput, owner: str, base_url: str, webhook: str | None, preferences: Preferences) -> ClusterJob:
        """A job that waits in line. ApiError where it cannot."""
        if not self.dispatcher.known:
            raise NoWorkers
        local, files = await self._sources(request.loras)
        if self.store.waiting(owner) >= self.settings.max_waiting:
            raise QueueFull(self.settings.max_waiting)
        if len(self.line) >= self.settings.max_queued:
            raise QueueFull(self.settings.max_queued, "max_queued")
        seed = random_seed() if request.seed is None else request.seed
        job = ClusterJob(owner, seed, webhook, preferences=preferences, request=request.model_dump() | {"seed": seed}, base_url=base_url,
                         local_loras=local, files=files, arrival=time.time())
        self.store.add(job)
        try:
            await self.store.keep(job)
        except BaseException:
            self.store.forget(job)
            raise
        self._wait(job)
        return job

    async def _sources(self, loras: list[LoRAWeight]) -> tuple[list[str], dict[str, str]]:
        """Which LoRAs are files that a worker has, and which were sent here. InvalidRequest for one that is not there or not allowed."""
        local, files = list[str](), dict[str, str]()
        for index, weight in enumerate(loras):
            try:
                if (uploaded := await self._uploads.file(weight.path)) is not None:
                    files[weight.path] = str(uploaded)
                    continue
                source = lora_source(weight.path, weight.weight_name, self.dispatcher.loras)
                if isinstance(source, LocalFile):
                    local.append(source.name)
                else:
                    self._downloader.check(source)
            except DownloadRefused as error:
                raise InvalidRequest([Detail(("body", "loras", index, "path"), str(error), "value_error", weight.path)]) from error
        return local, files

    def _wait(self, job: ClusterJob) -> None:
        self.line.join(job.request_id, job.priority, job.arrival)
        if (seconds := job.preferences.start_seconds) is not None:
            self._drop_timeout(job)
            wait = max(0.0, job.arrival + seconds - time.time())
            self._timeouts[job.request_id] = asyncio.get_running_loop().call_later(wait, self._give_up_waiting, job)
        self.dispatcher.look()

    def job(self, request_id: str, owner: str) -> ClusterJob:
        return self.store.job(request_id, owner)

    def cancel(self, job: Job) -> None:
        """Out of the line, or off its worker; its result is Cancelled then, unless it is complete already."""
        job.unwanted = True
        self._end(job)

    def _drop_timeout(self, job: ClusterJob) -> None:
        """It may be set for years, and holds the job."""
        if (timeout := self._timeouts.pop(job.request_id, None)) is not None:
            timeout.cancel()

    def _give_up_waiting(self, job: ClusterJob) -> None:
        """The start timeout is over: what still waits, in line or on its way to a worker, ends with an error; what runs goes on."""
        if job.status == IN_QUEUE and not job.unwanted:
            job.late = True
            self._end(job)

    def _end(self, job: Job) -> None:
        if self.line.leave(job.request_id):
            known = self.store.jobs[job.request_id]
            self._do(self._complete(known, _not_wanted(known)))
        elif job.request_id in self._attempts:
            self._do(self._pool.cancel(*self._attempts[job.request_id]))

    def queue_position(self, job: Job) -> int:
        return self.line.ahead_of(job.request_id)

    def jwks(self) -> dict[str, Any]:
        return self._messenger.signer.jwks()

    def health(self) -> Health:
        return Health(version=pack_version(), missing_models=[], missing_interpolators=[])

    @property
    def uploads(self) -> Uploads:
        return self._uploads

    async def _try(self, request_id: str, worker: Worker) -> None:
        """One attempt at a job. It never raises."""
        job = self.store.jobs[request_id]
        if job.unwanted or job.late:  # since it left the line
            return await self._complete(job, _not_wanted(job))
        job.attempts += 1
        attempt = Attempt(request_id, f"{request_id} {self._start} {job.attempts}", job.request or {}, job.headers(), job.files)
        self._attempts[request_id] = worker.name, attempt
        log.info("request %s goes to %s, attempt %d, in line since %.6f", request_id, worker.name, job.attempts, job.arrival)
        try:
            answer = await self._answer(job, worker, attempt)
        except WorkerLost as lost:
            self.dispatcher.vanish(worker)
            return await self._go_on_without(worker, job, lost)
        except Exception as error:  # noqa: BLE001 whatever it was, the job must not wait for ever
            log.error("request %s: %s", request_id, type(error).__name__, exc_info=None if job.preferences.private else error)
            self._do(self._pool.cancel(worker.name, attempt))
            answer = Answer.of(InternalError(f"{type(error).__name__}. The gateway's log says more."))
        finally:
            self._attempts.pop(request_id, None)
        await self._complete(job, _not_wanted(job) if answer.status == Cancelled.status else answer)

    async def _answer(self, job: ClusterJob, worker: Worker, attempt: Attempt) -> Answer:
        """What the worker says; of a good answer the video is there."""
        async with self.videos.arriving(job.request_id) as video:
            async for event in self._pool.run(worker.name, attempt):
                if isinstance(event, Ended):
                    return self._own(job, event.answer, video)
                await _take(event, job, video)
        raise WorkerLost("its events ended without an answer")

    def _own(self, job: ClusterJob, answer: Answer, video: Arriving) -> Answer:
        """The answer of a worker as the gateway's: its video is here."""
        if answer.status >= 400:
            return answer
        output = TextToVideoOutput.model_validate(answer.body)
        if output.video.file_size != video.size:
            raise WorkerLost(f"{video.size} bytes of the video came, and it has {output.video.file_size}")
        url = job.base_url + VIDEO_URL.format(request_id=job.request_id, file_name=output.video.file_name)
        return replace(answer, body=output.model_copy(update={"video": output.video.model_copy(update={"url": url})}).model_dump())

    async def _go_on_without(self, worker: Worker, job: ClusterJob, lost: WorkerLost) -> None:
        """Wait for another worker, at the place of before; a job that has lost too many ends."""
        log.warning("%s was lost under request %s: %s", worker.name, job.request_id, lost)
        self.lost += 1
        job.strikes += 1
        if job.strikes >= STRIKES and not job.unwanted:
            return await self._complete(job, Answer.of(Disconnected(job.strikes)))
        job.say("The worker was lost. Another one begins again.", "WARNING")
        await self._keep(job)
        if job.unwanted or job.late:
            return await self._complete(job, _not_wanted(job))
        job.wait_again()
        self._wait(job)

    async def _complete(self, job: ClusterJob, answer: Answer) -> None:
        """First on the disk, then told: whoever has seen the answer gets the same one from every later gateway."""
        if job.answer is not None:
            return
        self._drop_timeout(job)
        done = replace(job, video=None if answer.status >= 400 else f"{job.request_id}.mp4")
        done.complete(answer)
        job.answer, job.finished, job.video = done.answer, done.finished, done.video
        await self._keep(done)
        job.status, job.request, job.files = COMPLETED, None, {}
        job.done.set()
        self.answers[answer.status] += 1
        if job.video:
            self.pace.add(job.metrics().get("inference_time", 0.0))
            self.videos.keep(job, answer.body["video"]["file_size"])
        self._messenger.tell(job)

    async def _keep(self, job: Job) -> None:
        try:
            if isinstance(job, ClusterJob) and job.request_id in self.store.jobs:
                await self.store.keep(job)
            self.store.forget_the_oldest()
        except OSError as error:
            log.warning("request %s is not kept beyond a restart: %s", job.request_id, error)

    def _forget_video(self, job: ClusterJob) -> None:
        self.videos.delete(job.request_id)

    async def _sweep(self) -> None:
        while True:
            self.videos.delete_what_is_over()
            await asyncio.sleep(SWEEP_SECONDS)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _not_wanted(job: ClusterJob) -> Answer:
    """Why nobody makes it: its start came too late, or somebody said so, at its worker too."""
    return Answer.of(StartTimeout(job.preferences.start_seconds or 0.0) if job.late else Cancelled())


async def _take(event: Event, job: ClusterJob, video: Arriving) -> None:
    if isinstance(event, Begun):
        job.start()
    elif isinstance(event, LogLine):
        job.say(event.message, event.level, event.source)
    elif isinstance(event, Picture):
        job.show(event.content)
    elif isinstance(event, Piece):
        await video.add(event.content)
