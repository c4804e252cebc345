"""Files in ComfyUI's output folder: names, metadata, and writing a VIDEO without losing it."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import comfy.cli_args
import comfy.model_management
import folder_paths
from comfy_api.latest import Input, InputImpl

from ...engine.frames import FrameStream
from ...engine.safety.stream import UnsafeContent
from ...engine.video.formats import VideoFormat
from ...engine.video.spool import backwards
from ...engine.video.write import PartFile, remove_stale_parts, write_file
from .decoding import DecodingFailed, where_kept
from .lazy import comment, following, keep_latent_of, levels, stream_of, watched

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


class WritingFailed(RuntimeError):
    """The video could not be written; the text says why, what helps and where the latent is."""


@dataclass(frozen=True)
class SavedVideo:
    """The finished file: its VIDEO, its absolute path, its folder below ComfyUI's output folder."""

    video: Input.Video
    path: Path
    subfolder: str


def check_prefix(filename_prefix: str) -> Path:
    """The output folder; ValueError when the prefix names no file or leaves that folder."""
    output = Path(folder_paths.get_output_directory()).resolve()
    if not filename_prefix.strip() or filename_prefix.endswith(("/", "\\")):
        raise ValueError(f"filename_prefix is '{filename_prefix}'; give a file name, for example video/Wan22.")
    if not (output / filename_prefix).resolve().is_relative_to(output):
        raise ValueError(f"filename_prefix is '{filename_prefix}'; it must stay below the output folder {output}. "
                         "Remove the '..' or the leading '/', or the link that leads out of it.")
    return output


def prompt_of(video: Input.Video) -> str:
    """What the video was drawn for; empty where nobody knows."""
    return comment(video).get("comment", "")


def metadata(prompt: Any, extra_pnginfo: Mapping[str, Any] | None, video: Input.Video) -> dict[str, Any]:
    """What core's Save Video writes, workflow and prompt, and as comment what the video was drawn for; nothing under --disable-metadata."""
    if comfy.cli_args.args.disable_metadata:
        return {}
    return {**comment(video), **(extra_pnginfo or {}), **({"prompt": prompt} if prompt is not None else {})}


def save_each(video: Input.Video, filename_prefix: str, video_format: VideoFormat, reverse: bool, tags: Mapping[str, Any]) -> list[SavedVideo]:
    """A file for each video of a batch, with the next numbers, out of one pull; files that are whole stay where a later one fails. See `save`."""
    return [save(following(video, clip), filename_prefix, video_format, reverse, tags) for clip in stream_of(video).clips()]


def on_disk(video: Input.Video, saved: list[SavedVideo]) -> Input.Video:
    """The VIDEO that was saved as it lies on the disk; of a batch one file after the other, with its seams."""
    if len(saved) == 1:
        return saved[0].video
    stream = stream_of(video)
    return following(video, replace(stream, width=stream.width // 2 * 2, height=stream.height // 2 * 2,  # as 4:2:0 holds it
                                    pull=lambda: chain.from_iterable(stream_of(file.video).pull() for file in saved)))


def save(video: Input.Video, filename_prefix: str, video_format: VideoFormat, reverse: bool, tags: Mapping[str, Any]) -> SavedVideo:
    """Write the frames of `video`, with progress and interruption per chunk; `tags` become the file's metadata.

    WritingFailed when making the frames or writing them fails, on a full disk for example; the latent is kept then.
    """
    stream = stream_of(video)
    clip = watched(levels(stream, video_format), stream.count)
    try:
        if reverse:
            clip = watched(backwards(clip, temporary_folder()), stream.count)
            stream = replace(stream, audio=stream.audio and stream.audio.backwards(stream.duration))
        part, subfolder = claimed_file(filename_prefix, stream, video_format)
        write_file(part, clip, stream, video_format, tags)
    except (comfy.model_management.InterruptProcessingException, DecodingFailed, UnsafeContent):
        raise
    except Exception as error:
        raise WritingFailed(f"the video could not be written: {error}.{_room_for(error)}{where_kept(keep_latent_of(video))}") from error
    return SavedVideo(InputImpl.VideoFromFile(str(part.target)), part.target, subfolder)


def _room_for(error: Exception) -> str:
    if not isinstance(error, OSError) or error.errno not in NO_ROOM:
        return ""
    return f" Make room in {folder_paths.get_output_directory()} and {folder_paths.get_temp_directory()}, or make them writable."


def claimed_file(filename_prefix: str, stream: FrameStream, video: VideoFormat) -> tuple[PartFile, str]:
    """The next numbered file for this prefix, claimed against other writers, and its folder below the output folder."""
    output = check_prefix(filename_prefix)
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(filename_prefix, str(output), stream.width, stream.height)
    remove_stale_parts(Path(folder), name)
    while True:
        try:
            return PartFile(Path(folder) / f"{name}_{counter:05}_.{video.extension}"), subfolder
        except FileExistsError:
            counter += 1


def temporary_folder() -> Path:
    """ComfyUI's own, which it empties when it starts."""
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder
