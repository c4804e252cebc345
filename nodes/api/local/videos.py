"""Videos of jobs in ComfyUI's output folder: without their tags where that was asked for, and deleted when they are to go."""

import asyncio
import time
from pathlib import Path

import folder_paths

from ...engine.video.formats import VideoFormat
from ...engine.video.write import PartFile, copy_without_tags
from ..jobs.job import Job


def remove_tags(file: Path) -> None:
    """Write the file anew without what ComfyUI writes into it, the workflow and the prompt; pictures and their times are copied as they are."""
    copy_without_tags(file, PartFile(file, may_replace=True), VideoFormat())


def delete(job: Job) -> None:
    if job.video:
        (Path(folder_paths.get_output_directory()) / job.video).unlink(missing_ok=True)


def delete_in_time(job: Job) -> None:
    """Delete the video of a complete job once it has been there for as long as its client asked."""
    seconds = job.preferences.video_seconds
    if job.video and job.finished and seconds is not None:
        asyncio.get_running_loop().call_later(max(0.0, job.finished + seconds - time.time()), delete, job)
