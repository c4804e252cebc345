"""Write frames to a video file: tagged BT.709 limited range, constant frame rate, readable while it downloads; encoded in a second thread."""

import contextlib
import glob
import io
import json
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..frames import FrameStream
from ..log import log
from .formats import VideoFormat, check_rate, check_size
from .sound import AudioTrack, playable

BT709 = 1  # ISO/IEC 23091-2: primaries, transfer and matrix all have code 1
QUEUED_CHUNKS = 2
STALE_SECONDS = 24 * 3600
WAITS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 0)  # seconds after each try to rename a file that another program holds
QUIET_SVT_AV1 = ("SVT_LOG", "1")  # its only switch: errors, no banner
THREADS = Path("/proc/self/task")
Levels = np.ndarray  # (T, H, W, 3) uint8, or uint16 with white at 255 * 256


class Part(Protocol):
    """What is written first, at `path`, and gets the name `target` when it is whole."""

    target: Path
    path: Path

    def keep(self) -> None: ...

    def discard(self) -> None: ...


class PartFile:
    """The file beside `target` that is written first; claiming it keeps other writers from the same name."""

    def __init__(self, target: Path, may_replace: bool = False) -> None:
        """FileExistsError when its part file is there already, or the target where it may not be replaced."""
        self.target, self.path = target, target.with_name(target.name + ".part")
        self.path.open("x").close()
        if target.exists() and not may_replace:
            self.discard()
            raise FileExistsError(target)

    def keep(self) -> None:
        """Give the finished file its name. OSError that says where it is, if that cannot be done."""
        for seconds in WAITS:
            try:
                self.path.replace(self.target)
                return
            except PermissionError:  # on Windows a virus scanner holds a fresh file for a moment
                time.sleep(seconds)
        is_new = not self.target.exists()
        try:
            shutil.copyfile(self.path, self.target)  # whoever holds it may let others read
        except OSError as error:
            if is_new:
                with contextlib.suppress(OSError):
                    self.target.unlink(missing_ok=True)  # a piece of it is no video
            raise OSError(error.errno, f"the finished video is kept as {self.path}, and could not be named {self.target.name} "
                                       f"({error.strerror}). Close the program that holds it and rename it") from error
        self.discard()

    def discard(self) -> None:
        with contextlib.suppress(OSError):  # while it is held on Windows; it goes as a stale part later
            self.path.unlink(missing_ok=True)


def remove_stale_parts(folder: Path, name: str) -> None:
    """Delete what killed processes left of files called `name`_...; a process that lives writes to its part file all the time.

    A video that is finished and only could not get its name stays.
    """
    for part in folder.glob(f"{glob.escape(name)}_*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE_SECONDS and not _is_finished(part):
                part.unlink()


def _is_finished(part: Path) -> bool:
    """Encoders write the length last, and a GIF ends with a semicolon."""
    with part.open("rb") as file:
        head, end = file.read(8), file.seek(max(0, part.stat().st_size - 1)) and file.read()
    if head.startswith((b"RIFF", b"GIF8")):
        return head[4:] != bytes(4) if head.startswith(b"RIFF") else end == b";"
    try:
        with av.open(str(part)) as container:
            return bool(container.duration and container.streams.video)
    except (av.error.FFmpegError, OSError):
        return False


def write_file(part: Part, clip: Iterator[Levels], stream: FrameStream, video: VideoFormat, metadata: Mapping[str, object]) -> int:
    """Write `clip` to the file that `part` stands for, which appears whole or not at all; returns the number of frames."""
    try:
        count = write(str(part.path), clip, stream, video, metadata)
    except BaseException:
        part.discard()
        raise
    part.keep()
    return count


def write(target: str | io.BytesIO, clip: Iterator[Levels], stream: FrameStream, video: VideoFormat, metadata: Mapping[str, object]) -> int:
    """Write `clip`, with the size, rate and sound of `stream`, to a path or a buffer; returns the number of frames.

    Metadata values are stored as `tag` has them. OSError when the disk is full or the folder is read-only.
    """
    flags = "use_metadata_tags" if isinstance(target, io.BytesIO) else "use_metadata_tags+faststart"
    audio, warnings = playable(stream.audio)
    for warning in warnings:
        log.warning("%s", warning)
    with av.open(target, "w", format=video.muxer, options=_of_mp4(video, flags)) as container:
        for key, value in metadata.items():
            container.metadata[key] = tag(value)
        pictures = VideoTrack(container, stream, video)
        sound = AudioTrack(container, audio, opus=video.muxer == "webm") if audio is not None else None

        def encode(chunk: Levels) -> None:
            pictures.encode(chunk)
            if sound is not None:
                sound.encode_until(pictures.seconds)

        encode_beside(encode, clip)
        pictures.close()
        if sound is not None:
            sound.close()
        return pictures.count


def _of_mp4(video: VideoFormat, flags: str) -> dict[str, str]:
    return {"movflags": flags} if video.muxer in ("mp4", "mov") else {}


def copy_without_tags(source: Path, part: Part, video: VideoFormat) -> None:
    """The file `source` once more without its metadata: packets and their times are copied as they are."""
    try:
        with av.open(source) as read, av.open(part.path, "w", format=video.muxer, options=_of_mp4(video, "faststart")) as written:
            copies = {stream.index: written.add_stream_from_template(stream) for stream in read.streams}
            for packet in read.demux():
                if packet.size:  # the last of each stream are empty
                    packet.stream = copies[packet.stream.index]
                    written.mux(packet)
    except BaseException:
        part.discard()
        raise
    part.keep()


def tag(value: object) -> str:
    """A text as it is, anything else as JSON, the way ComfyUI reads it back: browsers know no NaN and no infinity, and UTF-8 no half characters."""
    text = value if isinstance(value, str) else json.dumps(_finite(value), allow_nan=False, default=str, skipkeys=True)
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def encode_beside(encode: Callable[[Levels], None], clip: Iterator[Levels]) -> None:
    """Call `encode` for each chunk in a second thread while the next chunks are made, at most QUEUED_CHUNKS ahead."""
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="wan22-encode") as thread:
        for chunk in clip:
            if len(waiting) == QUEUED_CHUNKS:
                waiting.popleft().result()
            waiting.append(thread.submit(encode, chunk))
        while waiting:
            waiting.popleft().result()


@contextlib.contextmanager
def scheduled_as_before() -> Iterator[None]:
    """SVT-AV1 gives its threads and the one that opens it real-time priority wherever it may, as root may: with the threads that they start later
    they would leave nothing to other programs."""
    if not THREADS.is_dir():  # not Linux
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in (int(entry.name) for entry in THREADS.iterdir()):
            with contextlib.suppress(OSError):  # it has ended
                if os.sched_getscheduler(thread) == os.SCHED_FIFO != policy:
                    os.sched_setscheduler(thread, policy, parameters)


class VideoTrack:
    """The pictures of a file; odd sizes lose their last row or column, which 4:2:0 cannot hold."""

    def __init__(self, container: av.container.OutputContainer, stream: FrameStream, video: VideoFormat) -> None:
        check_size(video.codec, stream.width, stream.height)
        check_rate(video.codec, stream.rate, video.container)
        self.container, self.rate, self.pixel_format, self.count = container, stream.rate, video.pixel_format, 0
        self.width, self.height = stream.width // 2 * 2, stream.height // 2 * 2
        os.environ.setdefault(*QUIET_SVT_AV1)
        track = container.add_stream(video.encoder.encoder, rate=stream.rate, options=video.encoder_options(stream.count))
        assert isinstance(track, av.VideoStream)
        self.track = track
        self.track.width, self.track.height, self.track.pix_fmt = self.width, self.height, video.pixel_format
        context = self.track.codec_context
        context.time_base, context.sample_aspect_ratio = 1 / stream.rate, stream.pixel_aspect
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = BT709
        if video.encoder.tag is not None and video.muxer != "matroska":
            context.codec_tag = video.encoder.tag
        self._open(video.codec)
        self.reformatter = VideoReformatter()

    def _open(self, codec: str) -> None:
        """Before the first frame is made; encoders of other builds may take less than `check_size` says."""
        try:
            with scheduled_as_before():
                self.track.codec_context.open()
        except av.error.FFmpegError as error:
            raise ValueError(f"{codec} cannot write {self.width}x{self.height} at {float(self.rate):g} frames per second with this PyAV ({error}). "
                             "Choose another codec or size, or fewer frames per second.") from error

    @property
    def seconds(self) -> float:
        return float(self.count / self.rate)

    def encode(self, chunk: Levels) -> None:
        for picture in chunk:
            self.container.mux(self.track.encode(self._yuv(picture)))
            self.count += 1

    def close(self) -> None:
        self.container.mux(self.track.encode(None))

    def _yuv(self, picture: np.ndarray) -> av.VideoFrame:
        even = picture[: self.height, : self.width]
        if even.shape != picture.shape:
            even = np.ascontiguousarray(even)
        rgb = av.VideoFrame.from_ndarray(even, format="rgb24" if even.dtype == np.uint8 else "rgb48le")
        frame = self.reformatter.reformat(rgb, format=self.pixel_format, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
        frame.pts = self.count
        frame.time_base = 1 / self.rate
        return frame
