"""Writing a VIDEO into ComfyUI's folders without losing it: each of its videos in the way out that was asked for, with its metadata."""

import errno
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import comfy.cli_args
import comfy.model_management
import folder_paths
import numpy as np
from comfy_api.latest import Input, InputImpl, io, ui

from ...engine.frames import Audio, FrameStream, joined
from ...engine.safety.stream import UnsafeContent
from ...engine.video.edit import Edit
from ...engine.video.formats import SEQUENCES, VideoFormat
from ...engine.video.pictures import read as pictures
from ...engine.video.pictures import write as pictures_write
from ...engine.video.sound import playable
from ...engine.video.spool import played_again
from ...engine.video.write import copy_without_tags, write_file
from .decoding import DecodingFailed, where_kept
from .lazy import comment, following, keep_latent_of, levels, stream_of, watched
from .places import Place, claimed, names_folder, temporary_folder

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


class WritingFailed(RuntimeError):
    """The video could not be written; the text says why, what helps and where the latent is."""


@dataclass(frozen=True)
class Order:
    """How a VIDEO is to be saved: below which name, as which kind of file, edited how, with which metadata; with `sound` in place of its own,
    `copy_without_metadata` for a second file without any, `save_output` off for ComfyUI's temporary folder."""

    filename_prefix: str
    video_format: VideoFormat
    edit: Edit = field(default_factory=Edit)
    tags: Mapping[str, Any] = field(default_factory=dict)
    sound: Audio | None = None
    copy_without_metadata: bool = False
    save_output: bool = True


@dataclass(frozen=True)
class SavedVideo:
    """The finished file or folder: its VIDEO, its frames and sound as a stream, its absolute path, the folder around it below ComfyUI's folder, and
    what the user should know about it."""

    video: Input.Video
    stream: FrameStream
    path: Path
    subfolder: str
    warnings: tuple[str, ...] = ()

    def shown(self, folder: io.FolderType) -> ui.SavedResult:
        """What the node shows: the file, or the first picture of a sequence."""
        if not self.path.is_dir():
            return ui.SavedResult(self.path.name, self.subfolder, folder)
        first = min(self.path.iterdir())
        return ui.SavedResult(first.name, f"{self.subfolder}/{self.path.name}".lstrip("/"), folder)


def prompt_of(video: Input.Video) -> str:
    """What the video was drawn for; empty where nobody knows."""
    return comment(video).get("comment", "")


def metadata(prompt: Any, extra_pnginfo: Mapping[str, Any] | None, video: Input.Video) -> dict[str, Any]:
    """What core's Save Video writes, workflow and prompt, and as comment what the video was drawn for; nothing under --disable-metadata."""
    if comfy.cli_args.args.disable_metadata:
        return {}
    return {**comment(video), **(extra_pnginfo or {}), **({"prompt": prompt} if prompt is not None else {})}


def save_each(video: Input.Video, order: Order) -> list[SavedVideo]:
    """A file for each video of a batch, with the next numbers, out of one pull; files that are whole stay where a later one fails. See `save`.

    Where the prefix names one folder for a sequence, the second video's gets its name with `_2`, and so on.
    """
    return [save(following(video, clip), _of_batch(order, number)) for number, clip in enumerate(stream_of(video).clips(), 1)]


def _of_batch(order: Order, number: int) -> Order:
    if number == 1 or not names_folder(order.filename_prefix, order.video_format.container):
        return order
    prefix = order.filename_prefix.rstrip("/\\")
    return replace(order, filename_prefix=f"{prefix}_{number}/")


def on_disk(video: Input.Video, saved: list[SavedVideo]) -> Input.Video:
    """The VIDEO that was saved as it lies on the disk; of a batch one file after the other, with its seams."""
    if len(saved) == 1:
        return saved[0].video
    streams = [file.stream for file in saved]
    *seams, total = accumulate(stream.count for stream in streams)
    sound = joined([(stream.audio, stream.duration) for stream in streams])
    return following(video, replace(streams[0], count=total, seams=tuple(seams), audio=sound,
                                    pull=lambda: chain.from_iterable(stream.pull() for stream in streams)))


def save(video: Input.Video, order: Order) -> SavedVideo:
    """Write the frames of `video`, with progress and interruption per chunk.

    WritingFailed when making the frames or writing them fails, on a full disk for example; the latent is kept then.
    """
    source, video_format = stream_of(video), order.video_format
    audio, warnings = _heard(source.audio if order.sound is None else order.sound, video_format)
    stream = order.edit.stream(replace(source, audio=audio))
    clip = levels(source, video_format)
    try:
        if order.edit.reverse:  # all frames are made before the first is written
            clip = watched(clip, source.count)
        if order.edit.changes_frames:
            clip = order.edit.clip(clip, source.count, temporary_folder())
        clip = watched(clip, stream.count)
        place = claimed(order.filename_prefix, stream, video_format, order.save_output)
        _write(place, clip, stream, order)
    except (comfy.model_management.InterruptProcessingException, DecodingFailed, UnsafeContent):
        raise
    except Exception as error:
        raise WritingFailed(f"the video could not be written: {error}.{_room_for(error)}{where_kept(keep_latent_of(video))}") from error
    if order.copy_without_metadata:
        warnings += _copied(place, video_format)
    return _saved(video, place, stream, video_format, tuple(warnings))


def _heard(sound: Audio | None, video_format: VideoFormat) -> tuple[Audio | None, list[str]]:
    """The sound as the file holds it, and what the user should know about it."""
    audio, warnings = playable(sound)
    if audio is None or not video_format.of_pictures:
        return audio, warnings
    return None, [f"the video has sound, and {video_format.container} holds none; it is written without. Choose the container mp4 to keep it."]


def _write(place: Place, clip: Iterator[np.ndarray], stream: FrameStream, order: Order) -> None:
    if order.video_format.of_pictures:
        pictures_write.write_pictures(place.part, clip, stream, order.video_format, order.tags,
                                      lambda seen: watched(played_again(seen, temporary_folder()), stream.count))
    else:
        write_file(place.part, clip, stream, order.video_format, order.tags)


def _copied(place: Place, video_format: VideoFormat) -> list[str]:
    """A second file without metadata; a warning where it could not be made, since the first one is whole."""
    try:
        part = place.beside("clean")
        if video_format.of_pictures:
            pictures_write.copy_without_tags(place.part.target, part)
        else:
            copy_without_tags(place.part.target, part, video_format)
    except OSError as error:
        return [f"the copy without metadata could not be written: {error}.{_room_for(error)}"]
    return []


def _saved(video: Input.Video, place: Place, stream: FrameStream, video_format: VideoFormat, warnings: tuple[str, ...]) -> SavedVideo:
    path = place.part.target
    if video_format.of_pictures:
        written = replace(stream, pull=lambda: pictures.frames(path))
        return SavedVideo(following(video, written), written, path, place.subfolder, warnings)
    file = InputImpl.VideoFromFile(str(path))
    width, height = stream.width // 2 * 2, stream.height // 2 * 2  # as 4:2:0 holds it
    written = replace(stream, width=width, height=height, pull=lambda: stream_of(file).pull())
    return SavedVideo(file, written, path, place.subfolder, warnings)


def shown(saved: list[SavedVideo], container: str, save_output: bool) -> dict[str, Any]:
    """What the front end shows on the node: it plays files that move as videos, but for WebP, and a GIF as the picture that it is."""
    files = [file.shown(io.FolderType.output if save_output else io.FolderType.temp) for file in saved]
    moves = container not in ("gif", *SEQUENCES)
    return ui.PreviewVideo(files).as_dict() if moves else {"images": files}


def _room_for(error: Exception) -> str:
    if not isinstance(error, OSError) or error.errno not in NO_ROOM:
        return ""
    return f" Make room in {folder_paths.get_output_directory()} and {folder_paths.get_temp_directory()}, or make them writable."
