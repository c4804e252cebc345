"""The endpoint on this machine: a request becomes the blueprint's prompt in ComfyUI's queue, and what comes out becomes the answer."""

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

import folder_paths

from ..engine.api.errors import (
    ApiError,
    Cancelled,
    ContentPolicyViolation,
    Detail,
    InternalError,
    InvalidRequest,
    ModelsMissing,
    NotFound,
    QueueFull,
    Restarted,
)
from ..engine.api.graph import EXPAND, SAVE, Blueprint
from ..engine.api.jobs import COMPLETED, KEPT, Answer, Job, JobFolder, random_seed
from ..engine.api.schema import LoRAWeight, TextToVideoInput, TextToVideoOutput, VideoFile
from ..engine.api.settings import Models, Settings
from ..engine.fetch.download import Downloader
from ..engine.fetch.rules import DownloadFailed, DownloadRefused
from ..engine.fetch.sources import LocalFile, LoRASource, local_file, lora_source
from ..engine.fetch.webhooks import deliver
from ..engine.model_files import DOWNLOADS, missing_file
from ..engine.pairs import likely_pair
from ..engine.video import read
from . import interpolation, queue, safety
from .language import language_model_names
from .messages import log
from .models import model_names

BLUEPRINT = Path(__file__).parents[2] / "subgraphs" / "Wan 2.2 Text to Video.json"
SETTINGS_FILE = "api.json"
POLL_SECONDS = 0.1
MOST_POLLS = 10  # that a job far behind in the queue leaves out
DOWNLOADED = "wan22_api"  # below models/loras
MEDIA_TYPE = "video/mp4"
HISTORY_CLEARED = "ComfyUI's history was cleared just when the job ended. If there is a video, it is in output/video/api."
LOG_EVERY = 0.1  # of a bar


def settings() -> Settings:
    """Of user/__wan22/api.json, which no page can read; WAN22_API=1 switches the API on, any other value off, WAN22_API_KEY adds a key.

    ValueError for a file that is not as it must be.
    """
    path = Path(folder_paths.get_system_user_directory("wan22")) / SETTINGS_FILE
    try:
        given = json.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
        if switch := os.environ.get("WAN22_API", ""):
            given["enabled"] = switch.strip().lower() in ("1", "true", "yes", "on")
        if key := os.environ.get("WAN22_API_KEY", ""):
            given["keys"] = [*given.get("keys", []), key]
        return Settings.read(json.dumps(given))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None


def chosen_models(asked: Models) -> dict[str, str]:
    """A file for each of the blueprint's model parameters: the one asked for, else what is there under a usual name, else the official name."""
    high, low = likely_pair(model_names("diffusion_models"))
    found = {"high_noise_model": high, "low_noise_model": low, "text_encoder": _named("text_encoders", "umt5"), "vae": _named("vae", "wan", "2.1"),
             "language_model": language_model_names()[0], "image_classifier": safety.picture_classifier_names()[0]}
    official_high, official_low = DOWNLOADS["diffusion_models"]
    official = {"high_noise_model": official_high, "low_noise_model": official_low, "text_encoder": next(iter(DOWNLOADS["text_encoders"])),
                "vae": next(iter(DOWNLOADS["vae"]))}
    return {name: value for name in Models.model_fields if (value := getattr(asked, name) or found.get(name) or official.get(name))}


def _named(folder: str, *words: str) -> str | None:
    files = model_names(folder)
    fitting = [file for file in files if all(word in file.lower().replace("_", "").replace("2.1", " 2.1") for word in words)]
    return next((file for file in DOWNLOADS[folder] if file in files), next(iter(fitting), None))


def missing_models(models: Mapping[str, str]) -> list[str]:
    """A sentence for each file that is not there, with where to get it."""
    needed = [("diffusion_models", models["high_noise_model"]), ("diffusion_models", models["low_noise_model"]),
              ("text_encoders", models["text_encoder"]), ("vae", models["vae"])]
    missing = [missing_file(folder, name) for folder, name in needed if folder_paths.get_full_path(folder, name) is None]
    interpolation.interpolator_names()  # which tells 0.3.75 of their folder
    for name in interpolation.OFFICIAL:
        try:
            interpolation.interpolator_path(name)
        except ValueError as error:
            missing.append(str(error))
    return missing


class Endpoint:
    """All requests of this server. Its methods run in the server's event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.blueprint = settings, Blueprint.read(BLUEPRINT)
        self.folder = JobFolder.claimed(Path(folder_paths.get_system_user_directory("wan22")))
        self.log_lines = queue.LogLines()
        loras = Path(folder_paths.get_folder_paths("loras")[0])
        self.downloader = Downloader(loras / DOWNLOADED, settings.downloads.rules())
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.sending: set[asyncio.Task[bool]] = set()
        self.jobs = self.folder.restored()
        for job in [job for job in self.jobs.values() if job.answer is None]:
            self._complete(job, Answer.of(Restarted()))

    async def submit(self, request: TextToVideoInput, owner: str, base_url: str, webhook: str | None = None) -> Job:
        """A job that waits in ComfyUI's queue, or for its downloads. ApiError where it cannot."""
        waiting = sum(job.owner == owner and job.status != COMPLETED for job in self.jobs.values())
        if waiting >= self.settings.max_waiting:
            raise QueueFull(self.settings.max_waiting)
        sources = self._sources(request.loras)
        seed = random_seed() if request.seed is None else request.seed
        job = Job(owner, request.prompt, seed, webhook)
        self.jobs[job.request_id] = job
        try:
            self.folder.keep(job)
            local = [source.name for source in sources if isinstance(source, LocalFile)]
            if len(local) == len(sources):
                await self._queue(job, request, local)
        except BaseException:
            self._forget(job)
            raise
        self.tasks[job.request_id] = asyncio.create_task(self._follow(job, request, sources, base_url, queued=len(local) == len(sources)))
        return job

    def job(self, request_id: str, owner: str) -> Job:
        """NotFound for what is not there, and for what is another key's."""
        job = self.jobs.get(request_id)
        if job is None or job.owner != owner:
            raise NotFound(f"Request {request_id[:64]}")
        return job

    def cancel(self, job: Job) -> None:
        """Take the job out of ComfyUI's queue, interrupt it, or end its downloads; its result is Cancelled then, unless it is complete already."""
        if job.queued:
            queue.take_out(job.request_id)
        elif not job.unwanted and job.request_id in self.tasks:
            self.tasks[job.request_id].cancel()
        job.unwanted = True

    def queue_position(self, job: Job) -> int:
        return queue.waiting_before(job.request_id) or 0

    def _sources(self, loras: list[LoRAWeight]) -> list[LoRASource]:
        names = model_names("loras")
        return [self._source(index, weight, names) for index, weight in enumerate(loras)]

    def _source(self, index: int, weight: LoRAWeight, names: list[str]) -> LoRASource:
        try:
            source = lora_source(weight.path, weight.weight_name, names)
            if isinstance(source, LocalFile):
                local_file(source.name, map(Path, folder_paths.get_folder_paths("loras")))
            else:
                self.downloader.check(source)
        except DownloadRefused as error:
            raise _bad_lora(index, weight, error) from error
        return source

    async def _queue(self, job: Job, request: TextToVideoInput, loras: list[str]) -> None:
        values = request.model_dump(exclude={"loras", "seed"})
        if request.num_interpolated_frames == 0:
            values["interpolator_model"] = interpolation.NONE  # no file of it is needed
        values |= chosen_models(self.settings.models)
        prompt = self.blueprint.prompt(values, list(zip(loras, request.loras, strict=True)), job.seed, f"video/api/{job.request_id}")
        try:
            await queue.put(job.request_id, prompt)
        except queue.PromptRefused as error:
            raise ModelsMissing(str(error)) from error
        job.queued = True
        self.log_lines.listeners[job.request_id] = job.say

    async def _follow(self, job: Job, request: TextToVideoInput, sources: list[LoRASource], base_url: str, queued: bool) -> None:
        try:
            if not queued:
                job.start()
                await self._queue(job, request, [await self._local_name(job, *each) for each in enumerate(zip(sources, request.loras, strict=True))])
            answer = Answer(200, (await self._output(job, request, base_url)).model_dump())
        except ApiError as error:
            answer = Answer.of(error)
        except asyncio.CancelledError:
            answer = Answer.of(Cancelled())
        except Exception as error:  # noqa: BLE001 whatever it was, the job must not wait for ever
            logging.exception("[Wan 2.2] API request %s", job.request_id)
            answer = Answer.of(InternalError(f"{type(error).__name__}. The server's log says more."))
        if job.queued:
            queue.take_out(job.request_id)  # where something else than the prompt failed
        self._complete(job, answer)

    async def _local_name(self, job: Job, index: int, each: tuple[LoRASource, LoRAWeight]) -> str:
        source, weight = each
        if isinstance(source, LocalFile):
            return source.name
        try:
            path = await self.downloader.fetch(source, job.say)
        except DownloadRefused as error:
            raise _bad_lora(index, weight, error) from error
        except DownloadFailed as error:
            raise InternalError(str(error)) from error
        return str(Path(DOWNLOADED) / path.name)

    async def _output(self, job: Job, request: TextToVideoInput, base_url: str) -> TextToVideoOutput:
        said: tuple[str, int] | None = None
        ran = False
        while (outcome := queue.outcome(job.request_id)) is None:
            if job.unwanted:
                queue.take_out(job.request_id)
            waits, runs = queue.waiting_before(job.request_id), queue.is_running(job.request_id)
            if runs:
                ran = True
                job.start()
                said = self._say_progress(job, said)
            elif waits is None and queue.outcome(job.request_id) is None:
                raise InternalError(HISTORY_CLEARED) if ran else Cancelled
            await asyncio.sleep(POLL_SECONDS * min(1 + (waits or 0), MOST_POLLS))
        job.start()
        if outcome.interrupted:
            raise Cancelled
        if outcome.exception.endswith("UnsafeContent"):
            raise ContentPolicyViolation(request.prompt, outcome.message)
        if outcome.exception:
            raise InternalError(outcome.message or outcome.exception)
        shown = outcome.outputs[self.blueprint.node_id(SAVE)]["images"][0]
        path = Path(folder_paths.get_output_directory()) / shown["subfolder"] / shown["filename"]
        query = urlencode({"filename": shown["filename"], "subfolder": shown["subfolder"], "type": shown["type"]})
        return TextToVideoOutput(prompt=self._expanded(request, outcome, path), seed=job.seed, video=VideoFile(
            url=f"{base_url}/view?{query}", content_type=MEDIA_TYPE, file_name=shown["filename"], file_size=path.stat().st_size))

    def _expanded(self, request: TextToVideoInput, outcome: queue.Outcome, path: Path) -> str:
        """The prompt as the experts got it. A node that ComfyUI had cached leaves no text in the history, but the file tells."""
        if not request.enable_prompt_expansion:
            return request.prompt
        said = outcome.outputs.get(self.blueprint.node_id(EXPAND), {}).get("text", [""])[0]
        return said or read.tags(str(path)).get("comment") or request.prompt

    def _say_progress(self, job: Job, said: tuple[str, int] | None) -> tuple[str, int] | None:
        """A line for each tenth of each bar; what was said last."""
        bar = queue.progress(job.request_id)
        if bar is None:
            return said
        node, value, most = bar
        tenth = (node, int(value / most / LOG_EVERY))
        if tenth != said:
            job.say(f"{self.blueprint.title(node)}: {value} of {most}")
        return tenth

    def _complete(self, job: Job, answer: Answer) -> None:
        self.log_lines.listeners.pop(job.request_id, None)
        self.tasks.pop(job.request_id, None)
        job.complete(answer)
        complete = sorted((each for each in self.jobs.values() if each.finished), key=lambda each: each.finished or 0)
        try:
            for old in complete[:-KEPT]:
                self._forget(old)
            self.folder.keep(job)
        except OSError as error:
            log.warning("[Wan 2.2] API request %s is not kept beyond a restart: %s", job.request_id, error)
        if job.webhook:
            told = asyncio.create_task(deliver(job.webhook, webhook_message(job, answer), self.settings.webhooks.rules(), log.warning))
            self.sending.add(told)
            told.add_done_callback(self.sending.discard)

    def _forget(self, job: Job) -> None:
        self.jobs.pop(job.request_id, None)
        self.folder.forget(job)


def webhook_message(job: Job, answer: Answer) -> dict[str, object]:
    message: dict[str, object] = {"request_id": job.request_id, "gateway_request_id": job.request_id,
                                  "status": "ERROR" if job.failed else "OK", "payload": answer.body}
    return {**message, "error": f"Invalid status code: {answer.status}"} if job.failed else message


def _bad_lora(index: int, weight: LoRAWeight, error: Exception) -> InvalidRequest:
    return InvalidRequest([Detail(("body", "loras", index, "path"), str(error), "value_error", weight.path)])
