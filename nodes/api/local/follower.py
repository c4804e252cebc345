"""One prompt in ComfyUI's queue, from its place there to the answer."""

import asyncio
from pathlib import Path
from urllib.parse import urlencode

import folder_paths

from ..blueprint import SAVE, Blueprint
from ..contract import TextToVideoInput, TextToVideoOutput, VideoFile
from ..errors import Cancelled, ContentPolicyViolation, InternalError
from ..jobs.job import Answer, Job
from . import prompt_queue
from .prompt_queue import Bar, Outcome
from .videos import remove_tags

POLL_SECONDS = 0.1
MOST_POLLS = 10  # that a job far behind in the queue leaves out
BAR_LINES = 10  # of the log, from the begin of a bar to its end
MEDIA_TYPE = "video/mp4"
HISTORY_CLEARED = "ComfyUI's history was cleared just when the job ended. If there is a video, it is in output/video/api."


class Follower:
    """Waits for a job's prompt; meanwhile the job says what runs, and how far."""

    def __init__(self, job: Job, request: TextToVideoInput, blueprint: Blueprint, base_url: str) -> None:
        self._job, self._request, self._blueprint, self._base_url = job, request, blueprint, base_url
        self._last: tuple[str, int] | None = None

    async def answer(self) -> Answer:
        """The video. ApiError where there is none."""
        outcome = await self._outcome()
        self._job.start()  # where nobody saw it run
        if outcome.interrupted:
            raise Cancelled
        if outcome.exception.endswith("UnsafeContent"):
            raise ContentPolicyViolation(self._request.prompt, outcome.message)
        if outcome.exception:
            raise InternalError(outcome.message or outcome.exception)
        return Answer(200, (await asyncio.to_thread(self._output, outcome)).model_dump())

    async def _outcome(self) -> Outcome:
        ran = False
        while (outcome := prompt_queue.outcome(self._job.request_id)) is None:
            if self._job.unwanted:
                prompt_queue.take_out(self._job.request_id)
            ahead = prompt_queue.waiting_before(self._job.request_id)
            if prompt_queue.is_running(self._job.request_id):
                ran = True
                self._job.start()
                self._say_progress(prompt_queue.progress(self._job.request_id))
            elif ahead is None and prompt_queue.outcome(self._job.request_id) is None:
                raise InternalError(HISTORY_CLEARED) if ran else Cancelled
            await asyncio.sleep(POLL_SECONDS * min(1 + (ahead or 0), MOST_POLLS))
        return outcome

    def _say_progress(self, bar: Bar | None) -> None:
        """A line when a bar is first seen, and for each tenth of it."""
        if bar is None:
            return
        part = (bar.node_id, bar.value * BAR_LINES // bar.most)
        if part != self._last:
            self._job.say(f"{self._blueprint.title(bar.node_id)}: {bar.value} of {bar.most}")
        self._last = part

    def _output(self, outcome: Outcome) -> TextToVideoOutput:
        saved = outcome.outputs[self._blueprint.node_id(SAVE)]
        (file,), (prompt,) = saved["images"], saved["prompt"]
        path = Path(file["subfolder"]) / file["filename"]
        self._job.video = path.as_posix()
        whole = Path(folder_paths.get_output_directory()) / path
        if self._job.preferences.private:
            remove_tags(whole)
        query = urlencode({"filename": file["filename"], "subfolder": file["subfolder"], "type": file["type"]})
        return TextToVideoOutput(prompt=prompt or self._request.prompt, seed=self._job.seed, video=VideoFile(
            url=f"{self._base_url}/view?{query}", content_type=MEDIA_TYPE, file_name=file["filename"],
            file_size=whole.stat().st_size))
