"""The writer keeps count, order, size, rate, colour and sound, in every codec, and leaves no half-written file."""

import io
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from av.video.reformatter import Colorspace

from engine.frames import Audio, FrameStream, chunks, to_levels
from engine.video.formats import CODECS, QUALITIES, VideoFormat, available_bit_depths, available_codecs, check_format
from engine.video.write import QUEUED_CHUNKS, THREADS, WAITS, PartFile, copy_without_tags, encode_beside, remove_stale_parts, write, write_file

FAST = VideoFormat(write_mode="fast")


def grey_ramp(frames: int, height: int = 48, width: int = 64) -> torch.Tensor:
    """Grey frames whose level names their place."""
    return torch.linspace(0.1, 0.9, frames)[:, None, None, None].expand(frames, height, width, 3)


def stream_of(frames: torch.Tensor, rate: Fraction = Fraction(16), audio: Audio | None = None) -> FrameStream:
    return FrameStream(frames.shape[2], frames.shape[1], len(frames), rate, lambda: chunks(frames), audio)


def written(path: Path, stream: FrameStream, video: VideoFormat = FAST, metadata: dict | None = None) -> Path:
    levels = (to_levels(chunk, video.level_depth) for chunk in stream.pull())
    assert write_file(PartFile(path), levels, stream, video, metadata or {}) == stream.count
    return path


def read_rgb(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.reformat(format="rgb24", src_colorspace=Colorspace.ITU709, dst_colorspace=Colorspace.ITU709).to_ndarray()
                         for frame in container.decode(video=0)])


def luma_of(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    dtype = np.uint16 if frame.format.components[0].bits > 8 else np.uint8
    return np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)[:, : plane.width]


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 17])
@pytest.mark.parametrize("rate", [Fraction(4), Fraction(16), Fraction(30000, 1001), Fraction(60), Fraction(300)])
def test_count_order_size_and_rate_survive(tmp_path: Path, frames: int, rate: Fraction) -> None:
    path = written(tmp_path / "clip.mp4", stream_of(grey_ramp(frames), rate))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames, stream.average_rate) == (64, 48, frames, rate)
        steps = np.diff([frame.pts * frame.time_base for frame in container.decode(video=0)])
        assert all(step == 1 / rate for step in steps)
    levels = read_rgb(path).mean(axis=(1, 2, 3))
    assert np.abs(levels - np.linspace(0.1, 0.9, frames) * 255).max() < 2


def test_every_frame_shows_its_own_number(tmp_path: Path) -> None:
    """The number as eight bars, dark or bright, for more frames than the encoder looks ahead."""
    numbers = range(200)
    bits = torch.tensor([[number >> bit & 1 for bit in range(8)] for number in numbers], dtype=torch.float32)
    frames = (bits * 0.6 + 0.2).repeat_interleave(8, 1)[:, None, :, None].expand(-1, 48, 64, 3)
    bars = read_rgb(written(tmp_path / "clip.mp4", stream_of(frames, Fraction(60)))).mean(axis=(1, 3)).reshape(-1, 8, 8).mean(axis=2)
    assert [sum(int(bar > 128) << bit for bit, bar in enumerate(frame)) for frame in bars] == list(numbers)


@pytest.mark.parametrize(("codec", "bit_depth"), [(codec, depth) for codec in available_codecs() for depth in available_bit_depths(codec)])
def test_every_codec_in_every_container(tmp_path: Path, codec: str, bit_depth: int) -> None:
    for container in CODECS[codec].containers:
        video = VideoFormat("maximum", "fast", codec, container, bit_depth)
        path = written(tmp_path / f"{bit_depth}.{video.extension}", stream_of(grey_ramp(9)), video, {"workflow": {"nodes": []}})
        with av.open(str(path)) as file:
            context = file.streams.video[0].codec_context
            assert context.pix_fmt == video.pixel_format
            assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
            assert {key.lower(): value for key, value in file.metadata.items()}["workflow"] == '{"nodes": []}'
            unit = 4 if "10" in video.pixel_format else 1
            luma = [luma_of(frame).mean() / unit for frame in file.decode(video=0)]
        assert np.abs(luma - (16 + 219 * np.linspace(0.1, 0.9, 9))).max() < 1, container


@pytest.mark.parametrize("codec", available_codecs())
def test_any_few_frames_are_written_in_every_codec(tmp_path: Path, codec: str) -> None:
    """Again and again, since what an encoder says of frames it never had is chance."""
    video = VideoFormat("low", "fast", codec, bit_depth=available_bit_depths(codec)[-1])
    for number in range(24):
        frames = number % 4 + 1
        path = written(tmp_path / f"{number}.{video.extension}", stream_of(grey_ramp(frames)), video)
        with av.open(str(path)) as file:
            times = [float(frame.time or 0) for frame in file.decode(video=0)]
        assert times == pytest.approx([place / 16 for place in range(frames)], abs=0.001)


def test_ten_bits_keep_what_eight_cannot(tmp_path: Path) -> None:
    ramp = torch.linspace(0.5, 0.52, 256)[None, None, :, None].expand(1, 64, 256, 3)
    shades = {}
    for bit_depth in (8, 10):
        path = written(tmp_path / f"{bit_depth}.mkv", stream_of(ramp), VideoFormat("maximum", "fast", "h265", "mkv", bit_depth))
        with av.open(str(path)) as container:
            shades[bit_depth] = len(np.unique(luma_of(next(container.decode(video=0)))))
    assert shades[10] > 2 * shades[8]


@pytest.mark.parametrize("colour", [(40, 160, 60), (200, 30, 30), *[(grey, grey, grey) for grey in (16, 80, 128, 200, 235)]])
@pytest.mark.parametrize("quality", QUALITIES)
def test_colours_are_bt709(tmp_path: Path, colour: tuple[int, int, int], quality: str) -> None:
    path = written(tmp_path / "clip.mp4", stream_of((torch.tensor(colour) / 255).expand(3, 48, 64, 3)), VideoFormat(quality, "fast"))
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range, context.pix_fmt) == (1, 1, 1, 1, "yuv420p")
    assert np.abs(read_rgb(path).astype(int) - colour).max() <= 2


@pytest.mark.parametrize("colour", [(40, 160, 60), (200, 30, 30), (16, 16, 16), (235, 235, 235)])
def test_the_ffmpeg_program_reads_the_tags_and_shows_the_same_colours(tmp_path: Path, colour: tuple[int, int, int]) -> None:
    path = written(tmp_path / "clip.mp4", stream_of((torch.tensor(colour) / 255).expand(3, 48, 64, 3)))
    program = imageio_ffmpeg.get_ffmpeg_exe()
    shown = subprocess.check_output([program, "-loglevel", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"])
    assert np.abs(np.frombuffer(shown, np.uint8).reshape(-1, 3).astype(int) - colour).max() <= 2
    described = subprocess.run([program, "-i", str(path)], capture_output=True, text=True, check=False).stderr
    assert "yuv420p(tv, bt709, progressive)" in described


def test_odd_sizes_lose_one_row_and_column(tmp_path: Path) -> None:
    assert read_rgb(written(tmp_path / "clip.mp4", stream_of(grey_ramp(3, 49, 65)))).shape == (3, 48, 64, 3)


@pytest.mark.parametrize(("channels", "rate"), [(1, 16000), (2, 44100), (2, 48000)])
@pytest.mark.parametrize("container", ["mp4", "webm"])
def test_sound_is_kept_and_ends_with_the_picture(tmp_path: Path, channels: int, rate: int, container: str) -> None:
    tone = torch.sin(torch.arange(rate * 3) * 2 * torch.pi * 440 / rate).expand(channels, -1) * 0.5
    video = VideoFormat(write_mode="fast", codec="vp9" if container == "webm" else "h264", container=container)
    path = written(tmp_path / f"clip.{container}", stream_of(grey_ramp(32), audio=Audio(tone, rate)), video)
    with av.open(str(path)) as file:
        sound = file.streams.audio[0]
        samples = np.concatenate([frame.to_ndarray() for frame in file.decode(sound)], axis=1)
        assert samples.shape[1] / sound.rate == pytest.approx(2.0, abs=0.1)
        spectrum = np.abs(np.fft.rfft(samples[0, : sound.rate]))
        assert np.argmax(spectrum) == pytest.approx(440, abs=2)


def test_metadata_is_json(tmp_path: Path) -> None:
    path = written(tmp_path / "clip.mp4", stream_of(grey_ramp(2)), metadata={"prompt": {"1": {"text": "\u72d0\u72f8"}}})
    with av.open(str(path)) as container:
        assert json.loads(container.metadata["prompt"]) == {"1": {"text": "\u72d0\u72f8"}}


@pytest.mark.parametrize("value", [
    {"is_changed": [float("nan")], "cfg": float("inf"), "nested": ({"x": -float("inf")},)}, {"object": object()}, {(1, 2): 3}])
def test_whatever_a_prompt_holds_browsers_can_read_it(tmp_path: Path, value: object) -> None:
    path = written(tmp_path / "clip.mp4", stream_of(grey_ramp(2)), metadata={"prompt": value})

    def refuse(constant: str) -> None:
        raise ValueError(f"JSON.parse refuses {constant}")

    with av.open(str(path)) as container:
        read = json.loads(container.metadata["prompt"], parse_constant=refuse)
    if "is_changed" in read:
        assert read == {"is_changed": [None], "cfg": None, "nested": [{"x": None}]}


@pytest.mark.parametrize("text", ["half a fox \ud83e", "\udcff", "a\0b", "\u72d0\u72f8 \U0001f98a"])
def test_no_text_costs_the_picture(tmp_path: Path, text: str) -> None:
    path = written(tmp_path / "clip.mp4", stream_of(grey_ramp(2)), metadata={"comment": text, "prompt": {"text": text}})
    with av.open(str(path)) as container:
        kept = container.metadata["comment"]
        json.loads(container.metadata["prompt"])
    assert kept == text.encode("utf-8", "replace").decode().replace("\0", "")


def test_the_index_comes_first_so_that_browsers_play_while_they_load(tmp_path: Path) -> None:
    head = written(tmp_path / "clip.mp4", stream_of(grey_ramp(20))).read_bytes()
    assert head.index(b"moov") < head.index(b"mdat")


def test_a_buffer_takes_a_video_too() -> None:
    buffer, stream = io.BytesIO(), stream_of(grey_ramp(5))
    assert write(buffer, map(to_levels, stream.pull()), stream, FAST, {}) == 5
    buffer.seek(0)
    with av.open(buffer) as container:
        assert container.streams.video[0].frames == 5


def test_a_failure_while_writing_leaves_no_file(tmp_path: Path) -> None:
    def breaking() -> Iterator[np.ndarray]:
        yield to_levels(grey_ramp(4))
        raise RuntimeError("decoder broke")

    with pytest.raises(RuntimeError, match="decoder broke"):
        write_file(PartFile(tmp_path / "clip.mp4"), breaking(), stream_of(grey_ramp(4)), FAST, {})
    assert list(tmp_path.iterdir()) == []


def test_a_claimed_name_cannot_be_claimed_again(tmp_path: Path) -> None:
    claimed = PartFile(tmp_path / "clip.mp4")
    with pytest.raises(FileExistsError):
        PartFile(tmp_path / "clip.mp4")
    claimed.discard()
    PartFile(tmp_path / "clip.mp4").keep()
    with pytest.raises(FileExistsError):
        PartFile(tmp_path / "clip.mp4")


def held(monkeypatch: pytest.MonkeyPatch, times: int) -> list[float]:
    """Another program holds a fresh file for so many tries to rename it; gives the waits between them, which take no time here."""
    waits: list[float] = []
    rename = os.replace

    def replace(source: str | Path, target: str | Path) -> None:
        if len(waits) < times:
            raise PermissionError(13, "The process cannot access the file because it is being used by another process")
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


@pytest.mark.parametrize("times", [0, 1, len(WAITS) - 1, len(WAITS) + 99])
def test_a_finished_file_gets_its_name_when_windows_lets_it_go_or_as_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    waits = held(monkeypatch, times)
    written(tmp_path / "clip.mp4", stream_of(grey_ramp(5)))
    assert len(waits) == min(times, len(WAITS))
    assert len(read_rgb(tmp_path / "clip.mp4")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_a_finished_file_that_cannot_get_its_name_is_never_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held(monkeypatch, 99)

    def unreadable(source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes()[:100])  # as far as the disk goes
        raise PermissionError(13, "held")

    monkeypatch.setattr(shutil, "copyfile", unreadable)
    with pytest.raises(OSError, match=r"is kept as .*clip_00001_\.mp4\.part, and could not be named clip_00001_\.mp4 \(held\)\. Close the program"):
        written(tmp_path / "clip_00001_.mp4", stream_of(grey_ramp(5)))
    (part,) = tmp_path.iterdir()
    assert len(read_rgb(part)) == 5
    os.utime(part, (time.time() - 48 * 3600,) * 2)
    remove_stale_parts(tmp_path, "clip")
    assert len(read_rgb(part)) == 5


@pytest.mark.parametrize("container", ["mp4", "mkv", "webm", "mov"])
def test_what_a_killed_process_left_in_any_container_is_no_finished_file(tmp_path: Path, container: str) -> None:
    """What lies on the disk before the encoder has written its last frames."""
    video = VideoFormat("maximum", "fast", "vp9" if container == "webm" else "h264", container)
    left = tmp_path / f"clip_00001_.{container}.part"

    def killed() -> Iterator[np.ndarray]:
        yield from map(to_levels, chunks(torch.rand(240, 48, 64, 3)))
        left.write_bytes(source.read_bytes())

    source = tmp_path / f"other.{container}.part"
    write(str(source), killed(), stream_of(grey_ramp(240), Fraction(1)), video, {})
    assert left.stat().st_size > 0
    os.utime(left, (time.time() - 48 * 3600,) * 2)
    remove_stale_parts(tmp_path, "clip")
    assert not left.exists()


def test_the_part_files_of_killed_processes_go_after_a_day(tmp_path: Path) -> None:
    for name, hours in (("clip_00001_", 25), ("clip_00002_", 1), ("other_00001_", 25)):
        path = PartFile(tmp_path / f"{name}.mp4").path
        os.utime(path, (time.time() - hours * 3600,) * 2)
    remove_stale_parts(tmp_path, "clip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip_00002_.mp4.part", "other_00001_.mp4.part"]


@pytest.mark.parametrize(("codec", "container"), [("h264", "mp4"), ("h264", "mov"), ("h264", "mkv"), ("vp9", "webm")])
def test_a_copy_without_tags_has_the_same_pictures_and_sound(tmp_path: Path, codec: str, container: str) -> None:
    """Frame by frame and at the same times, and no word of what the file was made from."""
    video, audio = VideoFormat("low", "fast", codec, container), Audio(torch.rand(2, 16000) - 0.5, 48000)
    stream = stream_of(grey_ramp(20), Fraction(30000, 1001), audio)
    path = written(tmp_path / f"clip.{container}", stream, video, {"workflow": {"nodes": []}, "comment": "a fox"})
    part = PartFile(tmp_path / f"clean.{container}")
    copy_without_tags(path, part, video)
    with av.open(str(path)) as first, av.open(str(part.target)) as second:
        for kind in ("video", "audio"):
            was, now = ([(frame.time, frame.to_ndarray().tobytes()) for frame in file.decode(**{kind: 0})] for file in (first, second))
            assert was == now
        assert first.streams.video[0].average_rate == second.streams.video[0].average_rate
    assert b"workflow" not in part.target.read_bytes() and b"a fox" not in part.target.read_bytes()


@pytest.mark.skipif(not THREADS.is_dir(), reason="only Linux says how threads are scheduled")
@pytest.mark.parametrize("codec", available_codecs())
def test_no_encoder_takes_the_machine_from_other_programs(tmp_path: Path, codec: str) -> None:
    """SVT-AV1 would, where the user may: as root, in containers."""
    before, seen = os.sched_getscheduler(0), set[int]()

    def watched() -> Iterator[np.ndarray]:
        for chunk in chunks(grey_ramp(3)):
            seen.update(os.sched_getscheduler(int(thread.name)) for thread in THREADS.iterdir())
            yield to_levels(chunk, 8)

    stream = stream_of(grey_ramp(3))
    write_file(PartFile(tmp_path / "clip"), watched(), stream, VideoFormat(write_mode="fast", codec=codec, container=CODECS[codec].containers[0]), {})
    assert seen == {before} and os.sched_getscheduler(0) == before


def test_encoding_runs_beside_but_not_far_behind() -> None:
    """Each chunk is encoded only once the source is as far ahead as it may be, or at its end."""
    made, encoded, lead, moved = 0, 0, [], threading.Condition()

    def source() -> Iterator[int]:
        nonlocal made
        for number in range(20):
            with moved:
                made += 1
                lead.append(made - encoded)
                moved.notify()
            yield number

    def encode(number: int) -> None:
        nonlocal encoded
        with moved:
            assert moved.wait_for(lambda: made >= min(number + 1 + QUEUED_CHUNKS, 20), timeout=60)
            encoded += 1

    encode_beside(encode, source())  # type: ignore[arg-type]
    assert (made, encoded) == (20, 20)
    assert max(lead) == QUEUED_CHUNKS + 1


def test_a_failing_encoder_stops_the_source() -> None:
    pulled: list[int] = []

    def source() -> Iterator[int]:
        for number in range(100):
            pulled.append(number)
            yield number

    def encode(number: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        encode_beside(encode, source())  # type: ignore[arg-type]
    assert len(pulled) <= QUEUED_CHUNKS + 2


@pytest.mark.parametrize(("make", "complaint"), [
    (lambda: VideoFormat("ultra"), "video_quality is 'ultra'; choose one of"),
    (lambda: VideoFormat(write_mode="slow"), "video_write_mode is 'slow'; choose one of"),
    (lambda: VideoFormat(codec="theora"), "codec is 'theora'; choose one of"),
    (lambda: VideoFormat(codec="prores", container="mp4"), "container for prores is 'mp4'; choose one of: auto, mov, mkv"),
    (lambda: VideoFormat(bit_depth=9), "bit_depth is 9; choose 8 or 10"),
    (lambda: stream_of(grey_ramp(1), Fraction(0)), "frame rate is 0; it must be above 0"),
    (lambda: check_format("high", "fast", "h264", "avi", 8), "container for h264 is 'avi'"),
    (lambda: check_format("high", "fast", "av1", "webp", 8), "codec is 'av1', but webp holds pictures.*at h264, or choose the container mp4"),
    (lambda: check_format("high", "fast", "h264", "gif", 10), "bit_depth is 10, but gif holds 8 bits per colour. Choose 8, or the container png"),
])
def test_unknown_settings_are_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.parametrize("codec", available_codecs())
def test_sizes_that_an_encoder_takes_are_written_and_others_refused_before_a_frame_is_made(tmp_path: Path, codec: str) -> None:
    """At the limits of each side, the other as small as it may be, and one step beyond."""
    limits, video = CODECS[codec].limits, VideoFormat("low", "fast", codec, bit_depth=available_bit_depths(codec)[-1])
    long_side = max(limits.least, limits.long_side)
    for width, height in ((long_side, limits.least), (long_side + 1, limits.least), (limits.least, long_side + 31)):
        written(tmp_path / f"{width}x{height}.{video.extension}", stream_of(torch.zeros(1, height, width, 3)), video)
    beyond = [(limits.least - 1, 64), (64, limits.least - 1), (long_side - 1, limits.least), (limits.width + 2, 64), (64, limits.height + 2)]
    for width, height in ((1, 1), *beyond):
        with pytest.raises(ValueError, match=rf"the picture is {width}x{height}, and {codec} takes {limits.least}x{limits.least} to .*Resize it"):
            write(str(tmp_path / "refused"), unmade(), FrameStream(width, height, 1, Fraction(16), unmade), video, {})


@pytest.mark.parametrize("codec", [codec for codec in available_codecs() if CODECS[codec].limits.rate])
def test_rates_that_an_encoder_takes_are_written_and_others_refused_before_a_frame_is_made(tmp_path: Path, codec: str) -> None:
    most, video = Fraction(CODECS[codec].limits.rate or 0), VideoFormat("low", "fast", codec)
    written(tmp_path / f"clip.{video.extension}", stream_of(grey_ramp(2), most), video)
    for rate in (most + Fraction(1, 10), Fraction(300)):
        with pytest.raises(ValueError, match=rf"{float(rate):g} frames per second, and {codec} takes {most} at most. .*choose the codec h264"):
            write(str(tmp_path / "refused"), unmade(), FrameStream(64, 64, 1, rate, unmade), video, {})


def test_what_another_build_of_an_encoder_refuses_is_refused_before_a_frame_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.video.write.check_size", lambda *_: None)
    with pytest.raises(ValueError, match="h264 cannot write 16386x64 at 16 frames per second with this PyAV .*Choose another codec"):
        write(str(tmp_path / "refused"), unmade(), FrameStream(16386, 64, 1, Fraction(16), unmade), FAST, {})


def unmade() -> Iterator[Any]:
    pytest.fail("a frame was made")
    yield
