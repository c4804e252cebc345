"""Animated WebP, GIF and sequences keep count, order, rate, size and colours, and appear whole or not at all."""

import os
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import clips
from engine.frames import FrameStream, chunks, to_levels
from engine.video.formats import ANIMATIONS, QUALITIES, SEQUENCES, WRITE_MODES, VideoFormat, check_rate
from engine.video.pictures import read, sequence, stills
from engine.video.pictures.write import copy_without_tags, write_pictures
from engine.video.spool import played_again
from engine.video.write import QUEUED_CHUNKS, Part, PartFile, remove_stale_parts

WAYS = [VideoFormat("high", "fast", container=container) for container in (*ANIMATIONS, *SEQUENCES)] + [VideoFormat(container="png", bit_depth=10)]
TAGS = {"workflow": {"nodes": [{"title": "Fuchs \u72d0"}]}, "prompt": {"1": {"text": "f\u00fcchse"}}, "comment": "ein f\u00fcchslein \u72d0"}


def name_of(video: VideoFormat) -> str:
    return f"{video.container}-{video.bit_depth}"


way = pytest.mark.parametrize("video", WAYS, ids=name_of)


def stream_of(frames: torch.Tensor, rate: Fraction = Fraction(16)) -> FrameStream:
    return FrameStream(frames.shape[2], frames.shape[1], len(frames), rate, lambda: chunks(frames))


def part_of(target: Path, video: VideoFormat) -> Part:
    return sequence.PartFolder(target) if video.container in SEQUENCES else PartFile(target.with_name(f"{target.name}.{video.extension}"))


def written(folder: Path, stream: FrameStream, video: VideoFormat, tags: dict | None = None, name: str = "clip_00001_") -> Path:
    part, levels = part_of(folder / name, video), (to_levels(chunk, video.level_depth) for chunk in stream.pull())
    assert write_pictures(part, levels, stream, video, tags or {}, lambda clip: played_again(clip, folder)) == stream.count
    return part.target


def seen(path: Path) -> torch.Tensor:
    return torch.cat(list(read.frames(path)))


def numbered(count: int) -> torch.Tensor:
    """Frames that show their number as eight bars, dark or bright."""
    bits = torch.tensor([[number >> bit & 1 for bit in range(8)] for number in range(count)], dtype=torch.float32)
    return (bits * 0.6 + 0.2).repeat_interleave(8, 1)[:, None, :, None].expand(-1, 48, 64, 3)


def durations(path: Path) -> list[int]:
    """Of each frame in milliseconds, by Pillow."""
    with Image.open(path) as animation:
        assert animation.info["loop"] == 0
        found = []
        for number in range(getattr(animation, "n_frames", 1)):
            animation.seek(number)
            animation.load()
            found.append(int(animation.info["duration"]))
        return found


@way
def test_every_frame_shows_its_own_number(tmp_path: Path, video: VideoFormat) -> None:
    bars = seen(written(tmp_path, stream_of(numbered(130)), video)).mean(dim=(1, 3)).reshape(-1, 8, 8).mean(dim=2)
    assert [sum(int(bar > 0.5) << bit for bit, bar in enumerate(frame)) for frame in bars] == list(range(130))


@pytest.mark.parametrize(("container", "tick"), [("webp", 1), ("gif", 10)])
@pytest.mark.parametrize("rate", [Fraction(4), Fraction(16), Fraction(30000, 1001), Fraction(50)])
def test_animations_loop_and_keep_their_rate(tmp_path: Path, container: str, tick: int, rate: Fraction) -> None:
    """To a tick for each frame, and no error adds up."""
    lasting = durations(written(tmp_path, stream_of(numbered(33), rate), VideoFormat(container=container)))
    assert all(abs(each - 1000 / rate) < tick for each in lasting)
    assert abs(sum(lasting) - 33 * 1000 / rate) <= tick / 2


@way
@pytest.mark.parametrize(("count", "height", "width"), [(1, 33, 47), (9, 1, 1), (2, 47, 1)])
def test_any_size_and_a_single_frame(tmp_path: Path, video: VideoFormat, count: int, height: int, width: int) -> None:
    frames = torch.full((count, height, width, 3), 0.4)
    torch.testing.assert_close(seen(written(tmp_path, stream_of(frames), video)), frames, atol=0.02, rtol=0)


@pytest.mark.parametrize(("bit_depth", "levels"), [(8, 255), (10, 65280)])
def test_png_loses_nothing(tmp_path: Path, bit_depth: int, levels: int) -> None:
    frames = torch.randint(0, levels + 1, (3, 16, 24, 3)) / levels
    for mode in WRITE_MODES:
        video = VideoFormat("low", mode, container="png", bit_depth=bit_depth)
        read_back = seen(written(tmp_path, stream_of(frames), video, name=mode))
        torch.testing.assert_close(read_back, frames, atol=1 / 65536 if bit_depth > 8 else 1e-6, rtol=0)


def test_sequences_are_numbered_from_one(tmp_path: Path) -> None:
    for container in SEQUENCES:
        folder = written(tmp_path, stream_of(numbered(3)), VideoFormat(container=container), name=container)
        assert sorted(path.name for path in folder.iterdir()) == [f"0000{number}.{container}" for number in (1, 2, 3)]
        with Image.open(folder / f"00002.{container}") as picture:
            assert picture.size == (64, 48)


def test_comfyui_finds_the_workflow_in_webp_and_in_the_first_png(tmp_path: Path) -> None:
    workflow, prompt = '{"nodes": [{"title": "Fuchs \\u72d0"}]}', '{"1": {"text": "f\\u00fcchse"}}'
    with Image.open(written(tmp_path, stream_of(numbered(2)), WAYS[0], TAGS)) as picture:
        exif = picture.getexif()
    assert (exif[0x0110], exif[0x010F]) == (f"prompt:{prompt}", f"workflow:{workflow}")  # where core's SaveAnimatedWEBP has them
    folder = written(tmp_path, stream_of(numbered(2)), VideoFormat(container="png"), TAGS)
    with Image.open(folder / "00001.png") as first, Image.open(folder / "00002.png") as second:
        assert (first.text, second.text) == ({"prompt": prompt, "workflow": workflow, "comment": TAGS["comment"]}, {})


@way
def test_a_copy_without_metadata_has_the_same_pictures_and_nothing_else(tmp_path: Path, video: VideoFormat) -> None:
    path, part = written(tmp_path, stream_of(numbered(9)), video, TAGS), part_of(tmp_path / "clean", video)
    copy_without_tags(path, part)
    assert torch.equal(seen(part.target), seen(path))
    for file in part.target.iterdir() if part.target.is_dir() else [part.target]:
        assert b"workflow" not in file.read_bytes()
    if video.container in ANIMATIONS:
        assert durations(part.target) == durations(path)


@pytest.mark.parametrize(("container", "mode"), [("webp", "balanced"), ("gif", "fast"), ("gif", "balanced"), ("jpg", "balanced")])
def test_a_higher_quality_is_no_less_like_the_original(tmp_path: Path, container: str, mode: str) -> None:
    """In every mode, on more clips: python dev.py bench ways_out --table."""
    scene = clips.clip("bikes.mp4", 2, 4)[:, 90:218, 150:342]
    likeness = [clips.ssim(scene, seen(written(tmp_path, stream_of(scene), VideoFormat(quality, mode, container=container), name=quality)))
                for quality in QUALITIES]
    assert likeness == sorted(likeness)


@way
def test_a_clip_that_fails_leaves_nothing(tmp_path: Path, video: VideoFormat) -> None:
    def failing() -> Iterator[np.ndarray]:
        yield np.zeros((8, 16, 16, 3), np.uint8)
        raise RuntimeError("CUDA error")

    stream = stream_of(torch.zeros(16, 16, 16, 3))
    with pytest.raises(RuntimeError, match="CUDA error"):
        write_pictures(part_of(tmp_path / "clip", video), failing(), stream, video, {}, lambda clip: played_again(clip, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_made_beside_but_not_far_behind() -> None:
    """Frames that are made and not written yet are a few chunks, however long the clip is."""
    made = out = 0

    def clip() -> Iterator[np.ndarray]:
        nonlocal made
        for _ in range(40):
            made += 4
            assert made - out <= 4 * (QUEUED_CHUNKS + 1)
            yield np.zeros((4, 8, 8, 3), np.uint8)

    for _ in stills.encoded(clip(), lambda picture: b""):
        out += 1
    assert out == 160


@pytest.mark.parametrize(("make", "complaint"), [
    (lambda: check_rate("h264", Fraction(60), "gif"), "60 frames per second, and browsers play a gif of more than 50 slowly.*mp4 or webp"),
    (lambda: check_rate("h264", Fraction(120), "webp"), "120 frames per second, and browsers play a webp of more than 90 slowly.*container mp4"),
])
def test_rates_that_browsers_play_slowly_are_refused(make: Callable[[], None], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        make()


@pytest.mark.parametrize(("container", "side", "cure"), [("webp", 16384, "png"), ("gif", 65536, "Resize"), ("jpg", 65536, "png")])
def test_pictures_that_the_format_cannot_hold_are_refused(tmp_path: Path, container: str, side: int, cure: str) -> None:
    frames = torch.zeros(1, 1, side, 3)
    with pytest.raises(ValueError, match=f"the picture is {side}x1, and {container} takes {side - 1} pixels a side.*{cure}"):
        written(tmp_path, stream_of(frames), VideoFormat(container=container))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_nobody_elses(tmp_path: Path) -> None:
    sequence.PartFolder(tmp_path / "taken")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "00001.png").touch()
    for name in ("taken", "full"):
        with pytest.raises(FileExistsError):
            sequence.PartFolder(tmp_path / name)
    (tmp_path / "empty").mkdir()
    assert len(list(written(tmp_path, stream_of(numbered(2)), WAYS[2], name="empty").iterdir())) == 2


def test_finished_pictures_that_cannot_get_their_name_are_told_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: object) -> None:
        raise PermissionError(13, "held")

    monkeypatch.setattr(Path, "rename", held)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(OSError, match=r"are kept in .*clip_00001_\.part, and the folder could not be named clip_00001_ \(held\)"):
        written(tmp_path, stream_of(numbered(2)), WAYS[2])
    for name in ("clip_00002_", "other_00001_"):
        sequence.PartFolder(tmp_path / name)
    sequence.PartFolder(tmp_path / "clip_00003_")
    for name in ("clip_00001_", "clip_00002_", "other_00001_"):
        os.utime(tmp_path / f"{name}.part", (time.time() - 48 * 3600,) * 2)
    sequence.remove_stale_folders(tmp_path, "clip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip_00001_.part", "clip_00003_.part", "other_00001_.part"]


@pytest.mark.parametrize("container", ANIMATIONS)
def test_what_a_killed_process_left_goes_and_a_whole_animation_stays(tmp_path: Path, container: str) -> None:
    whole = written(tmp_path, stream_of(numbered(20)), VideoFormat(container=container))
    left = whole.with_name(f"clip_00002_.{container}.part")
    left.write_bytes(bytes([*whole.read_bytes()[:4], 0, 0, 0, 0, *whole.read_bytes()[8:2000]]) + b"\0")
    kept = whole.rename(f"{whole}.part")
    for part in (left, kept):
        os.utime(part, (time.time() - 48 * 3600,) * 2)
    remove_stale_parts(tmp_path, "clip")
    assert list(tmp_path.iterdir()) == [kept]
