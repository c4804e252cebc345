"""The API's jobs on this machine: a request becomes the blueprint's prompt in ComfyUI's queue, and what comes out becomes the answer."""

import asyncio
from pathlib import Path
from typing import Any

import folder_paths

from ...engine.fetch.download import Downloader
from ...engine.fetch.rules import DownloadFailed, DownloadRefused
from ...engine.fetch.sources import LocalFile, LoRASource, local_file, lora_source
from ...engine.log import log
from ...host import viewers
from ...host.models.files import model_names
from ...host.video import interpolation
from ..blueprint import Blueprint
from ..contract import Health, LoRAWeight, TextToVideoInput
from ..errors import ApiError, Cancelled, Detail, InternalError, InvalidRequest, ModelsMissing, QueueFull, Restarted, StartTimeout
from ..headers import Preferences
from ..jobs.job import Answer, Job, random_seed
from ..jobs.messenger import Messenger
from ..jobs.store import JobStore
from ..settings import Models, Settings
from ..uploads.storage import Uploads
from ..version import pack_version
from . import prompt_queue, videos
from .follower import Follower
from .model_choice import chosen_models, missing_interpolators, missing_models

BLUEPRINT = Path(__file__).parents[3] / "subgraphs" / "Wan 2.2 Text to Video.json"
DOWNLOADED = "wan22_api"  # below models/loras
VIDEOS = "video/api"  # below ComfyUI's output folder
NO_PREFERENCES = Preferences()


class LocalService:
    """All requests of this server. Its methods run in the server's event loop."""

    def __init__(self, settings: Settings) -> None:
        """OSError for folders that cannot be used, ValueError for a damaged blueprint."""
        self.settings, self.blueprint = settings, Blueprint.read(BLUEPRINT)
        self.log_lines = prompt_queue.LogLines()
        self.loras = LoRAFiles(settings)
        self.tasks: dict[str, asyncio.Task[None]] = {}
        user_folder = Path(folder_paths.get_system_user_directory("wan22"))
        self.store: JobStore[Job] = JobStore.claimed(user_folder, settings.kept_jobs, videos.delete if settings.delete_videos else lambda job: None)
        self.messenger = Messenger(user_folder, settings.webhooks, self._keep)
        for job in list(self.store.jobs.values()):
            if job.answer is None:
                self.tasks[job.request_id] = asyncio.create_task(self._complete(job, Answer.of(Restarted())))
            else:
                self._see_off(job)

    async def submit(self, request: TextToVideoInput, owner: str, base_url: str, webhook: str | None = None,
                     preferences: Preferences = NO_PREFERENCES) -> Job:
        """A job that waits in ComfyUI's queue, or for its downloads. ApiError where it cannot."""
        sources = await self.loras.sources(request.loras)
        if self.store.waiting(owner) >= self.settings.max_waiting:
            raise QueueFull(self.settings.max_waiting)
        job = Job(owner, random_seed() if request.seed is None else request.seed, webhook, preferences=preferences)
        self.store.add(job)
        try:
            await self.store.keep(job)
            local = [source.name for source in sources if isinstance(source, LocalFile)]
            if len(local) == len(sources):
                await self._queue(job, request, local)
        except BaseException:
            self._stop_listening(job)
            self.store.forget(job)
            raise
        self.tasks[job.request_id] = asyncio.create_task(self._follow(job, request, sources, base_url))
        if preferences.start_seconds is not None:
            asyncio.get_running_loop().call_later(preferences.start_seconds, self._give_up_waiting, job)
        return job

    def job(self, request_id: str, owner: str) -> Job:
        """NotFound for what is not there, and for what is another key's."""
        return self.store.job(request_id, owner)

    def cancel(self, job: Job) -> None:
        """Take the job out of ComfyUI's queue, interrupt it, or end its downloads; its result is Cancelled then, unless it is complete already."""
        if job.queued:
            prompt_queue.take_out(job.request_id)
        elif not job.unwanted and job.request_id in self.tasks:
            self.tasks[job.request_id].cancel()
        job.unwanted = True

    def _give_up_waiting(self, job: Job) -> None:
        """The start timeout is over: what still waits, for its downloads or for its turn, ends with an error; what runs goes on."""
        if job.queued:
            job.late = prompt_queue.withdraw(job.request_id)
        elif job.request_id in self.tasks and not job.unwanted:
            job.late = self.tasks[job.request_id].cancel()

    def jwks(self) -> dict[str, Any]:
        """The keys that verify the webhooks; none where they are not signed."""
        return self.messenger.signer.jwks()

    def health(self) -> Health:
        return Health(version=pack_version(), missing_models=missing_models(chosen_models(self.settings.models)),
                      missing_interpolators=missing_interpolators())

    @property
    def uploads(self) -> Uploads:
        return self.loras.uploads

    def queue_position(self, job: Job) -> int:
        return prompt_queue.waiting_before(job.request_id) or 0

    async def _queue(self, job: Job, request: TextToVideoInput, loras: list[str]) -> None:
        values = _values(request, self.settings.models)
        prompt = self.blueprint.prompt(values, list(zip(loras, request.loras, strict=True)), job.seed, f"{VIDEOS}/{job.request_id}")
        self.log_lines.listen(job.request_id, job.say, job.preferences.private)  # before it can run
        viewers.programs[job.request_id] = job
        try:
            await prompt_queue.put(job.request_id, prompt, job.preferences.low)
        except prompt_queue.PromptRefused as error:
            raise ModelsMissing(str(error)) from error
        job.queued = True

    async def _follow(self, job: Job, request: TextToVideoInput, sources: list[LoRASource], base_url: str) -> None:
        try:
            if not job.queued:
                await self._queue(job, request, [await self.loras.fetch(index, *each, job.say)
                                                 for index, each in enumerate(zip(sources, request.loras, strict=True))])
            answer = await Follower(job, request, self.blueprint, base_url).answer()
        except ApiError as error:
            answer = Answer.of(error)
        except asyncio.CancelledError:
            answer = Answer.of(Cancelled())
        except Exception as error:  # noqa: BLE001 whatever it was, the job must not wait for ever
            log.error("API request %s: %s", job.request_id, type(error).__name__, exc_info=None if job.preferences.private else error)
            answer = Answer.of(InternalError(f"{type(error).__name__}. The server's log says more."))
        if job.queued:
            prompt_queue.take_out(job.request_id)  # where something else than the prompt failed
        if job.preferences.private:
            prompt_queue.forget(job.request_id)
        late = job.late and job.preferences.start_seconds
        await self._complete(job, Answer.of(StartTimeout(late)) if late else answer)

    async def _complete(self, job: Job, answer: Answer) -> None:
        self._stop_listening(job)
        self.tasks.pop(job.request_id, None)
        job.complete(answer)
        await self._keep(job)
        self._see_off(job)

    def _stop_listening(self, job: Job) -> None:
        self.log_lines.end(job.request_id)
        viewers.programs.pop(job.request_id, None)

    def _see_off(self, job: Job) -> None:
        """What is still to be done for a complete job."""
        if self.settings.delete_videos:
            videos.delete_in_time(job)
        self.messenger.tell(job)

    async def _keep(self, job: Job) -> None:
        try:
            if job.request_id in self.store.jobs:
                await self.store.keep(job)
            self.store.forget_the_oldest()  # afterwards: a video that cannot be deleted must not cost this job its file
        except OSError as error:
            log.warning("API request %s is not kept beyond a restart: %s", job.request_id, error)


class LoRAFiles:
    """Where a request's LoRAs come from: models/loras, what was sent here, or the web."""

    def __init__(self, settings: Settings) -> None:
        folder = Path(folder_paths.get_folder_paths("loras")[0]) / DOWNLOADED
        self.downloader, self.uploads = Downloader(folder, settings.downloads), Uploads(folder, settings.uploads)

    async def sources(self, loras: list[LoRAWeight]) -> list[LoRASource]:
        """InvalidRequest for one that is not there or not allowed; nothing is fetched."""
        names = model_names("loras")
        return [await self._source(index, weight, names) for index, weight in enumerate(loras)]

    async def _source(self, index: int, weight: LoRAWeight, names: list[str]) -> LoRASource:
        try:
            if (uploaded := await self.uploads.file(weight.path)) is not None:
                return LocalFile(str(Path(DOWNLOADED) / uploaded.name))
            source = lora_source(weight.path, weight.weight_name, names)
            if isinstance(source, LocalFile):
                local_file(source.name, map(Path, folder_paths.get_folder_paths("loras")))
            else:
                self.downloader.check(source)
        except DownloadRefused as error:
            raise _bad_lora(index, weight, error) from error
        return source

    async def fetch(self, index: int, source: LoRASource, weight: LoRAWeight, log: prompt_queue.Say) -> str:
        """The file's name below models/loras, once it is there."""
        if isinstance(source, LocalFile):
            return source.name
        try:
            path = await self.downloader.fetch(source, log)
        except DownloadRefused as error:
            raise _bad_lora(index, weight, error) from error
        except DownloadFailed as error:
            raise InternalError(str(error)) from error
        return str(Path(DOWNLOADED) / path.name)


def _bad_lora(index: int, weight: LoRAWeight, error: Exception) -> InvalidRequest:
    return InvalidRequest([Detail(("body", "loras", index, "path"), str(error), "value_error", weight.path)])


def _values(request: TextToVideoInput, models: Models) -> dict[str, Any]:
    """The blueprint's parameters."""
    values = request.model_dump(exclude={"loras", "seed"})
    if request.num_interpolated_frames == 0:
        values["interpolator_model"] = interpolation.NONE  # no file of it is needed
    return values | chosen_models(models)
