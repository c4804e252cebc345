"""What is in a video file."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from av.video.reformatter import Colorspace


@dataclass(frozen=True)
class VideoFacts:
    frames: int
    width: int
    height: int
    rate: Fraction
    codec: str
    pixel_format: str

    def __str__(self) -> str:
        return (f"{self.frames} frames, {self.width}x{self.height}, {float(self.rate):g} frames per second, "
                f"{self.codec} {self.pixel_format}")


def facts(path: Path) -> VideoFacts:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        decoded = sum(1 for _ in container.decode(stream))
        return VideoFacts(decoded, stream.width, stream.height, stream.average_rate, stream.codec_context.name, stream.codec_context.pix_fmt)


def pixels(path: Path) -> np.ndarray:
    """All frames, uint8 (T, H, W, 3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def rgb(path: Path, matrix: str = "bt709") -> torch.Tensor:
    """All frames as a player shows them that takes the file for `matrix`: float (T, H, W, 3) in 0..1."""
    space = {"bt709": Colorspace.ITU709, "bt601": Colorspace.ITU601}[matrix]
    with av.open(str(path)) as container:
        shown = [frame.reformat(format="rgb24", src_colorspace=space, dst_colorspace=space).to_ndarray() for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(shown)) / 255


def contact_sheet(path: Path, columns: int = 6, rows: int = 3, width: int = 256, gap: int = 8) -> Path:
    """A PNG beside the video with frames spread evenly over its length, in reading order."""
    frames = pixels(path)
    chosen = frames[np.linspace(0, len(frames) - 1, min(columns * rows, len(frames))).round().astype(int)]
    height = width * frames.shape[1] // frames.shape[2]
    sheet = np.full((-(-len(chosen) // columns) * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, frame in enumerate(chosen):
        top, left = (gap + place * (side + gap) for place, side in zip(divmod(index, columns), (height, width), strict=True))
        how = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_LANCZOS4
        sheet[top : top + height, left : left + width] = cv2.resize(frame, (width, height), interpolation=how)
    out = path.with_suffix(".png")
    write_png(out, sheet)
    return out


def write_png(path: Path, picture: np.ndarray) -> None:
    """A picture, uint8 (H, W, 3)."""
    path.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())  # imwrite knows no foreign letters on Windows
