"""Write a frame stream as H.264 MP4: yuv420p limited range, BT.709, constant frame rate, readable while it downloads."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace

from ..choices import check_choice
from ..frames import to_rgb24

BT709 = 1  # ISO/IEC 23091-2: primaries, transfer and matrix all have code 1
CRF = {"low": 28, "medium": 23, "high": 18, "maximum": 12}
PRESETS = {"fast": "veryfast", "balanced": "medium", "small": "slower"}


def check_encoder(video_quality: str, video_write_mode: str) -> None:
    """ValueError unless both are names from the tables."""
    check_choice("video_quality", video_quality, CRF)
    check_choice("video_write_mode", video_write_mode, PRESETS)


@dataclass(frozen=True)
class VideoFormat:
    """Size in pixels, frame rate and encoder settings of the file to write."""

    width: int
    height: int
    frame_rate: Fraction
    quality: str
    write_mode: str

    def __post_init__(self) -> None:
        if self.frame_rate <= 0:
            raise ValueError(f"the frame rate is {self.frame_rate}; it must be above 0.")
        check_encoder(self.quality, self.write_mode)

    @property
    def encoder_options(self) -> dict[str, str]:
        return {"crf": str(CRF[self.quality]), "preset": PRESETS[self.write_mode]}


def write_mp4(path: Path, clip: Iterator[torch.Tensor], video: VideoFormat, metadata: Mapping[str, object]) -> int:
    """Write the chunks of `clip` to `path`, which appears whole or not at all; returns the number of frames written.

    Metadata values are stored as JSON, the way ComfyUI reads them back.
    """
    part = path.with_suffix(".part.mp4")
    try:
        with av.open(str(part), "w", options={"movflags": "use_metadata_tags+faststart"}) as container:
            for key, value in metadata.items():
                container.metadata[key] = json.dumps(value)
            count = _encode(container, clip, video)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return count


def _encode(container: av.container.OutputContainer, clip: Iterator[torch.Tensor], video: VideoFormat) -> int:
    stream = _h264_stream(container, video)
    count = 0
    for chunk in clip:
        for pixels in to_rgb24(chunk):
            container.mux(stream.encode(_yuv_frame(pixels, stream, count)))
            count += 1
    container.mux(stream.encode(None))
    return count


def _h264_stream(container: av.container.OutputContainer, video: VideoFormat) -> av.VideoStream:
    stream = container.add_stream("libx264", rate=video.frame_rate, options=video.encoder_options)
    stream.width, stream.height = video.width // 2 * 2, video.height // 2 * 2
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / video.frame_rate
    context.color_range = ColorRange.MPEG
    context.colorspace = context.color_primaries = context.color_trc = BT709
    return stream


def _yuv_frame(pixels: np.ndarray, stream: av.VideoStream, index: int) -> av.VideoFrame:
    even = np.ascontiguousarray(pixels[: stream.height, : stream.width])
    frame = av.VideoFrame.from_ndarray(even, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    frame.pts = index
    frame.time_base = stream.codec_context.time_base
    return frame
