"""A file is read as it is shown: upright, in its colours, with its pixels' shape, as long as it lasts; and reading it costs nothing."""

import io
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
import torch

import clips
from engine.frames import FrameStream, chunks, gathered, to_levels
from engine.video import read
from engine.video.formats import VideoFormat
from engine.video.write import write

COLOURS = torch.tensor([(40, 160, 60), (200, 30, 30), (10, 20, 200), (77, 133, 219), *[(grey,) * 3 for grey in (0, 16, 128, 235, 255)]]) / 255
FORMATS = [VideoFormat("maximum", "fast"), VideoFormat("maximum", "fast", "h265", "mkv", 10), VideoFormat("maximum", "fast", "vp9"),
           VideoFormat("maximum", "fast", "av1", "auto", 10), VideoFormat("maximum", "fast", "prores")]


def of(frames: torch.Tensor, rate: Fraction = Fraction(16), pixel_aspect: Fraction = Fraction(1)) -> FrameStream:
    return FrameStream(frames.shape[2], frames.shape[1], len(frames), rate, lambda: chunks(frames), None, pixel_aspect)


def saved(stream: FrameStream, video: VideoFormat) -> io.BytesIO:
    file = io.BytesIO()
    write(file, (to_levels(chunk, video.level_depth) for chunk in stream.pull()), stream, video, {})
    file.seek(0)
    return file


def loaded(file: io.BytesIO | Path) -> torch.Tensor:
    return gathered(read.frames(str(file) if isinstance(file, Path) else file), 1)


@pytest.mark.parametrize("video", FORMATS, ids=lambda video: f"{video.codec} {video.bit_depth}")
@pytest.mark.parametrize("frames", [COLOURS[:, None, None].expand(-1, 48, 64, 3), clips.clip("carphone_pristine.mp4", 0, 6)], ids=["flat", "clip"])
def test_eight_generations_drift_by_less_than_a_level(video: VideoFormat, frames: torch.Tensor) -> None:
    """The mean of each frame and colour; the first save may round a flat colour by one level of its own."""
    first = now = loaded(saved(of(frames), video))
    for _ in range(7):
        now = loaded(saved(of(now), video))
    assert ((now - first).mean(dim=(1, 2)) * 255).abs().max() < 1
    assert ((now - frames).mean(dim=(0, 1, 2)) * 255).abs().max() < 1


def ffmpeg(*arguments: str, data: bytes = b"") -> bytes:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *arguments]
    return subprocess.run(command, input=data, capture_output=True, check=True).stdout


def by_ffmpeg(path: Path, frames: torch.Tensor, *arguments: str) -> Path:
    """A file that the program makes of frames (T, H, W, 3)."""
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    ffmpeg("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "16", "-i", "-", *arguments, str(path), data=to_levels(frames).tobytes())
    return path


@pytest.mark.parametrize("colours", ["bt709", "smpte170m"])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuvj420p", "yuv444p10le", "yuv422p10le", "gbrp"])
@pytest.mark.parametrize("span", ["tv", "pc"])
def test_range_and_matrix_of_a_file_are_honoured(tmp_path: Path, colours: str, pixels: str, span: str) -> None:
    """Black, white and colours are what they were before another program wrote them."""
    frames = COLOURS[:, None, None].expand(-1, 48, 64, 3)
    if pixels == "gbrp":
        arguments = ["-c:v", "libx264rgb", "-qp", "0"]
    else:
        arguments = ["-vf", f"scale=out_color_matrix={colours}:out_range={span}:flags=accurate_rnd+full_chroma_int,format={pixels}",
                     "-c:v", "libx264", "-qp", "0", "-colorspace", colours, "-color_range", span]
    path = by_ffmpeg(tmp_path / "clip.mkv", frames, *arguments)
    assert ((loaded(path) - frames).abs() * 255).max() <= 2.01


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(4, 3)])
def test_rotated_files_stand_upright_as_the_ffmpeg_program_shows_them(tmp_path: Path, degrees: int, aspect: Fraction) -> None:
    frames = torch.rand(3, 4, 6, 3).repeat_interleave(16, 1).repeat_interleave(16, 2)
    shape = f"setsar={aspect.numerator}/{aspect.denominator}"
    lying = by_ffmpeg(tmp_path / "lying.mp4", frames, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-vf", shape)
    path = tmp_path / "clip.mp4"
    ffmpeg("-display_rotation", str(degrees), "-i", str(lying), "-c", "copy", str(path))
    shown = ffmpeg("-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-sws_flags", "accurate_rnd+full_chroma_int", "-")
    file = read.description(str(path))
    assert (file.width, file.height) == ((64, 96) if degrees % 180 else (96, 64))
    assert file.pixel_aspect == (1 / aspect if degrees % 180 else aspect)
    oracle = np.frombuffer(shown, np.uint8).reshape(3, file.height, file.width, 3)
    assert np.abs(loaded(path).numpy() * 255 - oracle).mean() < 4  # turned wrongly it is above 80; chroma is bent otherwise at edges


@pytest.mark.parametrize("video", [*FORMATS[:2], *FORMATS[3:], VideoFormat("maximum", "fast", "vp9", "mp4")], ids=lambda video: video.codec)
@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(4, 3), Fraction(12, 11), Fraction(1, 2)])
def test_the_shape_of_pixels_is_kept(video: VideoFormat, aspect: Fraction) -> None:
    """PyAV cannot say it to WebM and Matroska, but in H.264 and H.265 it is in the pictures as well."""
    file = saved(of(torch.rand(2, 48, 64, 3), pixel_aspect=aspect), video)
    assert read.description(file).pixel_aspect == aspect


def uneven(path: Path, seconds: list[float]) -> Path:
    """A file whose frames are shown at these times, the last one as long as the one before."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 32
        stream.codec_context.time_base = Fraction(1, 1000)
        for place, second in enumerate(seconds):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), place * 5, np.uint8))
            frame.time_base, frame.pts = Fraction(1, 1000), round(second * 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def moments(kind: str) -> list[float]:
    """Twenty of them."""
    return {"even": [place / 10 for place in range(20)],
            "slow then fast": [*(place / 5 for place in range(10)), *(2 + place / 50 for place in range(10))],
            "one long pause": [place / 25 + (3 if place > 9 else 0) for place in range(20)],
            "fast then slow": [*(place / 50 for place in range(10)), *(0.2 + place / 5 for place in range(10))]}[kind]


@pytest.mark.parametrize("container", ["mp4", "mkv", "mov", "nut"])
@pytest.mark.parametrize("kind", ["even", "slow then fast", "fast then slow", "one long pause"])
def test_varying_rates_keep_their_duration(tmp_path: Path, kind: str, container: str) -> None:
    seconds = moments(kind)
    path = uneven(tmp_path / f"clip.{container}", seconds)
    file = read.description(str(path))
    assert file.count == len(loaded(path)) == 20
    step = max(np.diff(seconds))
    assert float(file.count / file.rate) == pytest.approx(seconds[-1] - seconds[0], abs=2 * step if kind != "one long pause" else 0.3)


def test_a_file_without_pictures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", str(path))
    with pytest.raises(ValueError, match=r"sound\.wav holds no video frames; choose another file"):
        read.description(str(path))


def test_chunks_are_small(tmp_path: Path) -> None:
    def lengths() -> Iterator[int]:
        yield from map(len, read.frames(saved(of(torch.rand(19, 32, 32, 3)), FORMATS[0])))

    assert list(lengths()) == [8, 8, 3]
