"""Videos of jobs in ComfyUI's output folder: without their tags where that was asked for, and deleted when they are to go."""

import asyncio
import time
from pathlib import Path

import av
import folder_paths

from ..jobs.job import Job


def remove_tags(file: Path) -> None:
    """Write the file anew without what ComfyUI writes into it, the workflow and the prompt; pictures and their times are copied as they are."""
    plain = file.with_name(f"{file.name}.part")
    try:
        with av.open(file) as source, av.open(plain, "w", format="mp4", options={"movflags": "+faststart"}) as target:
            copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = copies[packet.stream.index]
                    target.mux(packet)
        plain.replace(file)
    finally:
        plain.unlink(missing_ok=True)


def delete(job: Job) -> None:
    if job.video:
        (Path(folder_paths.get_output_directory()) / job.video).unlink(missing_ok=True)


def delete_in_time(job: Job) -> None:
    """Delete the video of a complete job once it has been there for as long as its client asked."""
    seconds = job.preferences.video_seconds
    if job.video and job.finished and seconds is not None:
        asyncio.get_running_loop().call_later(max(0.0, job.finished + seconds - time.time()), delete, job)
