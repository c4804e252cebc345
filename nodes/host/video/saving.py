"""Files in ComfyUI's output folder: names, metadata, and writing a VIDEO without losing it."""

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain
from pathlib import Path, PureWindowsPath
from typing import Any

import comfy.cli_args
import comfy.model_management
import folder_paths
from comfy_api.latest import Input, InputImpl

from ...engine.frames import FrameStream
from ...engine.safety.stream import UnsafeContent
from ...engine.video.formats import VideoFormat
from ...engine.video.names import dated, inert, portable, shortened
from ...engine.video.sound import playable
from ...engine.video.spool import backwards
from ...engine.video.write import PartFile, remove_stale_parts, write_file
from .decoding import DecodingFailed, where_kept
from .lazy import comment, following, keep_latent_of, levels, stream_of, watched

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
LONGEST_SUFFIX = "_0000001_.webm.part"
WIDGET = re.compile(r"%([^%.]+)\.([^%.]+)%")


class WritingFailed(RuntimeError):
    """The video could not be written; the text says why, what helps and where the latent is."""


@dataclass(frozen=True)
class SavedVideo:
    """The finished file: its VIDEO, its absolute path, its folder below ComfyUI's output folder, and what the user should know about it."""

    video: Input.Video
    path: Path
    subfolder: str
    warnings: tuple[str, ...] = ()


def check_prefix(filename_prefix: str) -> str:
    """The prefix as every file system takes it; ValueError when it names no file or leaves the output folder."""
    output = Path(folder_paths.get_output_directory()).resolve()
    prefix = portable(dated(filename_prefix, datetime.now()))
    if not prefix.strip() or prefix.rpartition("/")[2] in ("", ".", ".."):
        raise ValueError(f"filename_prefix is '{filename_prefix}'; give a file name, for example video/Wan22.")
    if PureWindowsPath(filename_prefix).is_absolute() or not (output / prefix).resolve().is_relative_to(output):
        raise ValueError(f"filename_prefix is '{filename_prefix}'; it must stay below the output folder {output}. "
                         "Remove the '..' or the leading '/', or the link that leads out of it.")
    return shortened(prefix, output, LONGEST_SUFFIX)


def filled_in(filename_prefix: str, prompt: Mapping[str, Any] | None) -> str:
    """`%Node.widget%` replaced by the widget's value, the node by its class or its title: the front end does so too, but not for API prompts."""
    nodes = list((prompt or {}).values())

    def widget_value(asked: re.Match[str]) -> str:
        of_class, titled = ([node for node in nodes if name(node) == asked[1]] for name in (_class_of, _title_of))
        value = (of_class or titled)[0]["inputs"].get(asked[2]) if of_class or titled else None
        return asked[0] if value is None or isinstance(value, list) else inert(value)

    return WIDGET.sub(widget_value, filename_prefix)


def _class_of(node: Mapping[str, Any]) -> Any:
    return node["class_type"]


def _title_of(node: Mapping[str, Any]) -> Any:
    return node.get("_meta", {}).get("title")


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
    audio, warnings = playable(stream.audio)
    stream = replace(stream, audio=audio)
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
    return SavedVideo(InputImpl.VideoFromFile(str(part.target)), part.target, subfolder, tuple(warnings))


def _room_for(error: Exception) -> str:
    if not isinstance(error, OSError) or error.errno not in NO_ROOM:
        return ""
    return f" Make room in {folder_paths.get_output_directory()} and {folder_paths.get_temp_directory()}, or make them writable."


def claimed_file(filename_prefix: str, stream: FrameStream, video: VideoFormat) -> tuple[PartFile, str]:
    """The next numbered file for this prefix, claimed against other writers, and its folder below the output folder."""
    prefix, output = check_prefix(filename_prefix), str(Path(folder_paths.get_output_directory()).resolve())
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output, stream.width, stream.height)
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
