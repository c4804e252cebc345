"""The lazy VIDEO is a VIDEO to every core node, of 0.3.75 and of newer versions, and any VIDEO is a stream to ours."""

import importlib
import io
import subprocess
import unittest.mock
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import imageio_ffmpeg
import pytest
import torch

import videos
from comfyui import PACK_FOLDER

NUMBERED = torch.linspace(0.1, 0.9, 20)[:, None, None, None].expand(20, 32, 48, 3)
TONE = torch.sin(torch.arange(20000) / 10)[None] * 0.5


class Counting:
    """A stream that notes how often it was pulled."""

    def __init__(self) -> None:
        self.pulls = 0

    def __call__(self) -> Iterator[torch.Tensor]:
        self.pulls += 1
        for start in range(0, 20, 3):
            yield NUMBERED[start : start + 3]


@pytest.fixture
def frames(pack: ModuleType) -> ModuleType:
    return importlib.import_module(f"{PACK_FOLDER}.nodes.engine.frames")


@pytest.fixture
def lazy(pack: ModuleType, frames: ModuleType) -> Any:
    stream = frames.FrameStream(48, 32, 20, Fraction(10), Counting(), frames.Audio(TONE, 10000))
    return pack.nodes.host.video.lazy.LazyVideo(stream)


def test_questions_about_it_pull_no_frame(lazy: Any) -> None:
    assert lazy.get_dimensions() == (48, 32)
    assert (lazy.get_frame_count(), lazy.get_frame_rate(), lazy.get_duration()) == (20, 10, 2.0)
    assert lazy.get_container_format() == "mp4"
    assert lazy.as_trimmed(0.5, 1.0).get_frame_count() == 10
    assert lazy.stream.pull.pulls == 0


def test_core_gets_tensors_when_it_asks(lazy: Any) -> None:
    components = lazy.get_components()
    assert torch.equal(components.images, NUMBERED)
    assert components.frame_rate == 10
    assert torch.equal(components.audio["waveform"], TONE[None])
    assert lazy.stream.pull.pulls == 1


def test_core_saves_it_to_a_path_and_to_a_buffer(lazy: Any, tmp_path: Path) -> None:
    lazy.save_to(str(tmp_path / "clip.mp4"), metadata={"prompt": {"1": 2}})
    facts = videos.facts(tmp_path / "clip.mp4")
    assert facts == videos.VideoFacts(20, 48, 32, Fraction(10), "h264", "yuv420p")
    assert videos.tags(tmp_path / "clip.mp4")["prompt"] == '{"1": 2}'
    source = lazy.get_stream_source()
    assert isinstance(source, io.BytesIO)
    with av.open(source) as container:
        assert (container.streams.video[0].frames, len(container.streams.audio)) == (20, 1)


def test_newer_keywords_of_save_to_have_their_effect(lazy: Any, tmp_path: Path) -> None:
    lazy.save_to(str(tmp_path / "ten.mp4"), bit_depth=10)
    assert videos.facts(tmp_path / "ten.mp4").pixel_format == "yuv420p10le"
    lazy.save_to(str(tmp_path / "coarse.mp4"), crf=51.0, preset="ultrafast", color_space="auto")
    lazy.save_to(str(tmp_path / "fine.mp4"), crf=0.0, preset="ultrafast")
    assert (tmp_path / "coarse.mp4").stat().st_size < (tmp_path / "fine.mp4").stat().st_size


@pytest.mark.parametrize("keyword", [{"format": "webm"}, {"codec": "vp9"}])
def test_formats_core_does_not_write_are_refused(lazy: Any, tmp_path: Path, keyword: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"is '(webm|vp9)'.*Wan 2.2 Save Video"):
        lazy.save_to(str(tmp_path / "clip"), **keyword)


@pytest.mark.parametrize(("start", "duration", "expected"), [
    (0, 0, range(20)), (0, 0.01, range(1)), (0.5, 1, range(5, 15)), (1.5, 9, range(15, 20)), (-0.5, 0, range(15, 20)), (None, None, range(20))])
def test_trimming_takes_the_frames_of_that_time(lazy: Any, start: float, duration: float, expected: range) -> None:
    assert torch.equal(lazy.as_trimmed(start, duration).get_components().images, NUMBERED[list(expected)])


def test_trimming_to_nothing_gives_none(lazy: Any) -> None:
    assert lazy.as_trimmed(2.0, 1.0) is None
    assert lazy.as_trimmed(1.5, 9.0, strict_duration=True) is None


@pytest.fixture
def files(pack: ModuleType, lazy: Any, tmp_path: Path) -> Any:
    from comfy_api.latest import InputImpl
    lazy.save_to(str(tmp_path / "clip.mp4"), crf=1.0)
    return InputImpl.VideoFromFile(str(tmp_path / "clip.mp4"))


def test_a_file_is_streamed_and_equals_what_core_reads(pack: ModuleType, files: Any) -> None:
    stream = pack.nodes.host.video.lazy.stream_of(files)
    core = files.get_components()
    chunks = list(stream.pull())
    assert max(map(len, chunks)) <= 8
    torch.testing.assert_close(torch.cat(chunks), core.images.float(), atol=2 / 255, rtol=0)  # newer versions keep what 8 bits round away
    assert (stream.count, stream.rate, stream.width, stream.height) == (20, 10, 48, 32)
    assert stream.audio.sample_rate == core.audio["sample_rate"]
    torch.testing.assert_close(stream.audio.waveform, core.audio["waveform"][0])


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_file_stays_upright_and_keeps_its_pixels_shape_through_interpolation_and_saving(pack: ModuleType, frames: ModuleType, tmp_path: Path,
                                                                                          degrees: int) -> None:
    from comfy_api.latest import InputImpl
    picture = torch.zeros(1, 32, 64, 3)
    picture[:, :16, :32] = 1  # bright where the file's first corner is
    stream = frames.FrameStream(64, 32, 5, Fraction(10), lambda: frames.chunks(picture.expand(5, -1, -1, -1)), None, Fraction(4, 3))
    pack.nodes.host.video.lazy.LazyVideo(stream).save_to(str(tmp_path / "lying.mp4"))
    turned = tmp_path / "turned.mp4"
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-display_rotation", str(degrees), "-i", str(tmp_path / "lying.mp4"),
                    "-c", "copy", str(turned)], check=True)
    interpolation = pack.nodes.host.video.interpolation
    network = interpolation.load_interpolator("rife")
    video = interpolation.interpolated(InputImpl.VideoFromFile(str(turned)), network, 1, True, 0.0)
    video.save_to(str(tmp_path / "again.mp4"))
    with av.open(str(tmp_path / "again.mp4")) as container:
        saved = container.streams.video[0]
        assert (saved.frames, saved.average_rate) == (9, 20)
        assert saved.sample_aspect_ratio == (Fraction(4, 3) if degrees % 180 == 0 else Fraction(3, 4))
        assert (saved.width, saved.height) == ((64, 32) if degrees % 180 == 0 else (32, 64))
    shown = torch.from_numpy(videos.pixels(tmp_path / "again.mp4")[0]) / 255
    torch.testing.assert_close(shown, torch.rot90(picture[0], degrees // 90), atol=0.25, rtol=0)


@pytest.mark.parametrize("container", ["webm", "mkv"])
def test_containers_without_a_frame_count_are_counted(pack: ModuleType, lazy: Any, tmp_path: Path, container: str) -> None:
    from comfy_api.latest import InputImpl
    engine = f"{PACK_FOLDER}.nodes.engine.video"
    write, formats = importlib.import_module(f"{engine}.write"), importlib.import_module(f"{engine}.formats")
    video_format = formats.VideoFormat("low", "fast", "vp9", container)
    path = tmp_path / f"clip.{container}"
    write.write_file(write.PartFile(path), pack.nodes.host.video.lazy.levels(lazy.stream, video_format), lazy.stream, video_format, {})
    assert pack.nodes.host.video.lazy.stream_of(InputImpl.VideoFromFile(str(path))).count == 20


def test_a_file_is_opened_once_to_be_described(pack: ModuleType, files: Any) -> None:
    import av
    with unittest.mock.patch.object(av, "open", wraps=av.open) as opening:
        assert pack.nodes.host.video.lazy.stream_of(files).count == 20
    assert opening.call_count == 1


def test_a_buffer_can_be_pulled_by_two_at_once(pack: ModuleType, files: Any, tmp_path: Path) -> None:
    from comfy_api.latest import InputImpl
    stream = pack.nodes.host.video.lazy.stream_of(InputImpl.VideoFromFile(io.BytesIO((tmp_path / "clip.mp4").read_bytes())))
    for one, other in zip(stream.pull(), stream.pull(), strict=True):
        assert torch.equal(one, other)


def test_a_trimmed_file_keeps_its_trim(pack: ModuleType, files: Any) -> None:
    if not hasattr(files, "as_trimmed"):
        pytest.skip("this ComfyUI cannot trim files")
    trimmed = files.as_trimmed(1.0, 0.5, False)
    stream = pack.nodes.host.video.lazy.stream_of(trimmed)
    assert sum(map(len, stream.pull())) == stream.count == 5


@pytest.mark.parametrize(("fps", "rate"), [(29.97, Fraction(2997, 100)), (23.976, Fraction(2997, 125)), (30000 / 1001, Fraction(30000, 1001)),
                                           (16.0, 16)])
def test_rates_that_core_makes_of_floats_become_exact(pack: ModuleType, fps: float, rate: Fraction) -> None:
    from comfy_api.latest import InputImpl, Types
    clip = InputImpl.VideoFromComponents(Types.VideoComponents(images=NUMBERED, audio=None, frame_rate=Fraction(fps)))
    assert pack.nodes.host.video.lazy.stream_of(clip).rate == rate
