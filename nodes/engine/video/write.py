"""Write frames to a video file: tagged BT.709 limited range, constant frame rate, readable while it downloads; encoded in a second thread."""

import contextlib
import glob
import io
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ..frames import Audio, FrameStream
from .formats import VideoFormat

BT709 = 1  # ISO/IEC 23091-2: primaries, transfer and matrix all have code 1
QUEUED_CHUNKS = 2
STALE_SECONDS = 24 * 3600
EVERY_CODEC_HAS_RATE = 48000
X265_DELAY, NO_B_FRAMES = 2, {"bf": "0"}  # frames: of a clip that is no longer, libx265 makes up the decoding times, which MP4 refuses
QUIET_SVT_AV1 = ("SVT_LOG", "1")  # its only switch: errors, no banner
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
Levels = np.ndarray  # (T, H, W, 3) uint8, or uint16 with white at 255 * 256


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
        self.path.replace(self.target)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)


def remove_stale_parts(folder: Path, name: str) -> None:
    """Delete what killed processes left of files called `name`_...; a process that lives writes to its part file all the time."""
    for part in folder.glob(f"{glob.escape(name)}_*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink()


def write_file(part: PartFile, clip: Iterator[Levels], stream: FrameStream, video: VideoFormat, metadata: Mapping[str, object]) -> int:
    """Write `clip` to the file that `part` stands for, which appears whole or not at all; returns the number of frames."""
    try:
        count = write(str(part.path), clip, stream, video, metadata)
        part.keep()
    finally:
        part.discard()
    return count


def write(target: str | io.BytesIO, clip: Iterator[Levels], stream: FrameStream, video: VideoFormat, metadata: Mapping[str, object]) -> int:
    """Write `clip`, with the size, rate and sound of `stream`, to a path or a buffer; returns the number of frames.

    Metadata values are stored as JSON, the way ComfyUI reads them back, texts as they are. OSError when the disk is full or the folder is read-only.
    """
    flags = "use_metadata_tags" if isinstance(target, io.BytesIO) else "use_metadata_tags+faststart"
    options = {"movflags": flags} if video.muxer in ("mp4", "mov") else {}
    with av.open(target, "w", format=video.muxer, options=options) as container:
        for key, value in metadata.items():
            container.metadata[key] = value if isinstance(value, str) else json.dumps(value)
        pictures = VideoTrack(container, stream, video)
        sound = AudioTrack(container, stream.audio, opus=video.muxer == "webm") if stream.audio is not None else None

        def encode(chunk: Levels) -> None:
            pictures.encode(chunk)
            if sound is not None:
                sound.encode_until(pictures.seconds)

        encode_beside(encode, clip)
        pictures.close()
        if sound is not None:
            sound.close()
        return pictures.count


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


class VideoTrack:
    """The pictures of a file; odd sizes lose their last row or column, which 4:2:0 cannot hold."""

    def __init__(self, container: av.container.OutputContainer, stream: FrameStream, video: VideoFormat) -> None:
        self.container, self.rate, self.pixel_format, self.count = container, stream.rate, video.pixel_format, 0
        self.width, self.height = stream.width // 2 * 2, stream.height // 2 * 2
        os.environ.setdefault(*QUIET_SVT_AV1)
        options = {**video.encoder_options, **(NO_B_FRAMES if stream.count <= X265_DELAY else {})}
        track = container.add_stream(video.encoder.encoder, rate=stream.rate, options=options)
        assert isinstance(track, av.VideoStream)
        self.track = track
        self.track.width, self.track.height, self.track.pix_fmt = self.width, self.height, video.pixel_format
        context = self.track.codec_context
        context.time_base = 1 / stream.rate
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = BT709
        if video.encoder.tag is not None and video.muxer != "matroska":
            context.codec_tag = video.encoder.tag
        self.reformatter = VideoReformatter()

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


class AudioTrack:
    """The sound of a file, written along with the pictures and cut where they end."""

    def __init__(self, container: av.container.OutputContainer, audio: Audio, opus: bool) -> None:
        self.container, self.position = container, 0
        self.waveform = audio.waveform.to(device="cpu", dtype=torch.float32).clamp(-1, 1).contiguous().numpy()
        self.rate = audio.sample_rate
        if len(self.waveform) not in LAYOUTS:
            raise ValueError(f"the audio has {len(self.waveform)} channels; mono, stereo and 5.1 can be written.")
        self.layout = LAYOUTS[len(self.waveform)]
        codec = av.Codec("libopus" if opus else "aac", "w")
        rate = self.rate if self.rate in (codec.audio_rates or ()) else EVERY_CODEC_HAS_RATE  # PyAV resamples
        self.track: Any = container.add_stream(codec.name, rate=rate, layout=self.layout)

    def encode_until(self, seconds: float) -> None:
        """Encode what sounds before `seconds` and was not encoded yet."""
        end = min(round(seconds * self.rate), self.waveform.shape[1])
        if end > self.position:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(self.waveform[:, self.position : end]), format="fltp", layout=self.layout)
            frame.sample_rate, frame.pts = self.rate, self.position
            self.container.mux(self.track.encode(frame))
            self.position = end

    def close(self) -> None:
        self.container.mux(self.track.encode(None))
