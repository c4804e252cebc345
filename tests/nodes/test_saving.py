"""Saving a VIDEO: whole files only, sound kept, backwards, full disks and bad prefixes told clearly, the latent not lost."""

import datetime
import errno
import importlib
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import tiny_weights
import videos
from clips import NUMBERED
from comfyui import PACK_FOLDER


def save(pack: ModuleType, formats: ModuleType, video: Any, prefix: str = "video/clip", reverse: bool = False) -> Any:
    return pack.nodes.host.video.saving.save(video, order(pack, formats, prefix, reverse))


def order(pack: ModuleType, formats: ModuleType, prefix: str = "video/clip", reverse: bool = False, codec: str = "h264", **tags: str) -> Any:
    video_format = formats.VideoFormat("maximum", "fast", codec)
    return pack.nodes.host.video.saving.Order(prefix, video_format, pack.nodes.engine.video.edit.Edit(reverse), tags)


def loudness(path: Path) -> np.ndarray:
    """Of the first and the last tenth of the sound."""
    samples = importlib.import_module(f"{PACK_FOLDER}.nodes.engine.video.read").description(str(path)).audio.waveform[0].numpy()
    tenth = len(samples) // 10
    return np.array([np.abs(samples[:tenth]).mean(), np.abs(samples[-tenth:]).mean()])


def test_sound_is_kept(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any) -> None:
    saved = save(pack, formats, lazy)
    assert saved.path == folders / "output" / "video" / "clip_00001_.mp4"
    first, last = loudness(saved.path)
    assert last > 3 * first


def test_backwards_turns_pictures_and_sound_and_leaves_no_spool(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any) -> None:
    forwards, backwards = save(pack, formats, lazy), save(pack, formats, lazy, reverse=True)
    difference = videos.pixels(forwards.path)[::-1].astype(int) - videos.pixels(backwards.path)
    assert np.abs(difference).max() <= 2
    first, last = loudness(backwards.path)
    assert first > 3 * last
    assert list((folders / "temp").iterdir()) == []


def batch(lazy: Any, pack: ModuleType, fail_at: int = 99) -> Any:
    """The twenty numbered frames as three videos of 5, 12 and 3, without sound."""
    def pull() -> Iterator[torch.Tensor]:
        for begin in range(0, 20, 4):
            if begin >= fail_at:
                raise RuntimeError("CUDA error")
            yield NUMBERED[begin : begin + 4]

    return pack.nodes.host.video.lazy.LazyVideo(replace(lazy.stream, pull=pull, seams=(5, 17), audio=None), lazy.keep_latent, "a fox")


@pytest.mark.parametrize("reverse", [False, True])
def test_each_video_of_a_batch_gets_a_file_of_its_own(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any, reverse: bool) -> None:
    """The same as if it were saved alone; backwards, each for itself. What goes on from Save is what lies on the disk."""
    video, saving = batch(lazy, pack), pack.nodes.host.video.saving
    saved = saving.save_each(video, order(pack, formats, reverse=reverse, comment="a fox"))
    assert [file.path.name for file in saved] == [f"clip_{number:05}_.mp4" for number in (1, 2, 3)]
    alone = [frames.flip(0) if reverse else frames for frames in NUMBERED.split([5, 12, 3])]
    for file, frames in zip(saved, alone, strict=True):
        assert videos.facts(file.path).frames == len(frames)
        assert np.abs(videos.pixels(file.path).mean(axis=(1, 2, 3)) / 255 - frames.mean(dim=(1, 2, 3)).numpy()).max() < 0.01
        assert videos.tags(file.path)["comment"] == "a fox"
    again = saving.on_disk(video, saved)
    assert again.stream.lengths == (5, 12, 3)
    torch.testing.assert_close(again.get_components().images, torch.cat(alone), atol=0.01, rtol=0)


def test_where_a_later_video_of_a_batch_fails_the_whole_files_stay_and_the_latent_is_kept(pack: ModuleType, formats: ModuleType, folders: Path,
                                                                                          lazy: Any) -> None:
    with pytest.raises(pack.nodes.host.video.saving.WritingFailed, match="CUDA error.*kept as"):
        pack.nodes.host.video.saving.save_each(batch(lazy, pack, fail_at=8), order(pack, formats))
    assert [videos.facts(path).frames for path in (folders / "output" / "video").iterdir()] == [5]


def test_a_batch_is_pulled_once_and_a_few_frames_at_a_time(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder takes each chunk before much more is pulled: nothing of one video waits for another."""
    made, written = [], []
    track = pack.nodes.engine.video.write.VideoTrack
    encode = track.encode

    def noted(self: Any, chunk: np.ndarray) -> None:
        written.append(len(chunk))
        encode(self, chunk)

    monkeypatch.setattr(track, "encode", noted)

    def pull() -> Iterator[torch.Tensor]:
        for index in range(60):
            made.append(index)
            assert len(made) - sum(written) <= 5
            yield NUMBERED[:1]

    video = pack.nodes.host.video.lazy.LazyVideo(replace(lazy.stream, count=60, pull=pull, seams=(20, 40), audio=None))
    pack.nodes.host.video.saving.save_each(video, order(pack, formats, "clip"))
    assert made == list(range(60))


@pytest.mark.parametrize("codec", ["h264", "h265", "av1", "vp9", "prores"])
def test_a_picture_is_a_video_of_one_frame(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any, codec: str) -> None:
    """From a stream of one frame through the interpolator to the file, and from there to core's nodes and to ours."""
    if codec not in formats.available_codecs():
        pytest.skip(f"this PyAV has no {codec}")
    frame = torch.full((1, 96, 128, 3), 0.4)
    picture = pack.nodes.host.video.lazy.LazyVideo(replace(lazy.stream, width=128, height=96, count=1, pull=lambda: iter([frame]), audio=None))
    interpolation = pack.nodes.host.video.interpolation
    made = interpolation.interpolated(picture, interpolation.load_interpolator(tiny_weights.RIFE), 2, True, 0.5)
    for reverse in (False, True):
        saved = pack.nodes.host.video.saving.save(made, order(pack, formats, "picture", reverse, codec))
        assert videos.facts(saved.path).frames == 1
        assert pack.nodes.host.video.lazy.stream_of(saved.video).count == 1
        for video in (made, saved.video):
            torch.testing.assert_close(video.get_components().images.float(), frame, atol=0.02, rtol=0)
            assert video.get_frame_rate() == 10


def test_core_can_go_on_with_what_was_saved(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any) -> None:
    assert save(pack, formats, lazy).video.get_frame_count() == 20


def test_names_count_up_and_part_files_count_too(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any) -> None:
    names = [save(pack, formats, lazy).path.name]
    (folders / "output" / "video" / "clip_00002_.mp4.part").touch()
    names.append(save(pack, formats, lazy).path.name)
    assert names == ["clip_00001_.mp4", "clip_00003_.mp4"]


def test_two_at_once_write_two_whole_files(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any) -> None:
    with ThreadPoolExecutor(4) as threads:
        saved = list(threads.map(lambda _: save(pack, formats, lazy), range(8)))
    assert sorted(path.path.name for path in saved) == [f"clip_{number:05}_.mp4" for number in range(1, 9)]
    assert {videos.facts(path.path).frames for path in saved} == {20}


def test_a_full_disk_is_told_and_the_latent_kept(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pack.nodes.engine.video.write.VideoTrack, "encode", full)
    with pytest.raises(pack.nodes.host.video.saving.WritingFailed, match=r"No space left.*Make room in .*output.*kept as .*\.latent"):
        save(pack, formats, lazy)
    assert list((folders / "output").rglob("*.*")) == []
    assert len(list((folders / "input").iterdir())) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="POSIX can limit the size of files")
@pytest.mark.parametrize("limit", [3_000, 60_000])
def test_a_disk_that_fills_up_at_any_time_leaves_no_broken_file(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any, limit: int) -> None:
    """The operating system refuses to write on, with the encoder and the muxer as they are; the latent is smaller than the limit."""
    import resource
    noise = torch.rand(20, 128, 128, 3)
    lazy = pack.nodes.host.video.lazy.LazyVideo(replace(lazy.stream, width=128, height=128, pull=lambda: iter([noise])), lazy.keep_latent)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(pack.nodes.host.video.saving.WritingFailed, match=r"Make room in .*output.*The latent"):
            save(pack, formats, lazy)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((folders / "output").rglob("*.*")) == []
    assert save(pack, formats, lazy).path.exists()


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), ValueError("frame 7 holds NaN"), torch.cuda.OutOfMemoryError("no room for FILM")])
def test_frames_that_fail_keep_the_latent_and_advise_no_room(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any,
                                                             error: Exception) -> None:
    def failing() -> Iterator[torch.Tensor]:
        yield NUMBERED[:4]
        raise error

    broken = pack.nodes.host.video.lazy.LazyVideo(replace(lazy.stream, pull=failing), lazy.keep_latent)
    with pytest.raises(pack.nodes.host.video.saving.WritingFailed, match=f"{error}.*kept as") as failure:
        save(pack, formats, broken)
    assert "Make room" not in str(failure.value)
    assert list((folders / "output").rglob("*.*")) == []


def test_writing_backwards_can_be_interrupted_after_the_last_frame_was_made(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any) -> None:
    import comfy.model_management

    def interrupted_at_the_end() -> Iterator[torch.Tensor]:
        yield from NUMBERED.split(4)
        comfy.model_management.interrupt_current_processing()

    stopped = pack.nodes.host.video.lazy.LazyVideo(replace(lazy.stream, pull=interrupted_at_the_end), lazy.keep_latent)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        save(pack, formats, stopped, reverse=True)
    assert list(folders.rglob("*.*")) == []


@pytest.mark.parametrize("seconds", [1.0, 8.0])
def test_backwards_sound_belongs_to_the_same_frames(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any, seconds: float) -> None:
    """A click at 0.5 s of 2 s of picture clicks at 1.5 s, however long the sound is."""
    click = torch.zeros(1, int(48000 * seconds))
    click[:, 24000:24480] = 1
    stream = replace(lazy.stream, audio=replace(lazy.stream.audio, waveform=click))
    saved = save(pack, formats, pack.nodes.host.video.lazy.LazyVideo(stream), reverse=True)
    heard = importlib.import_module(f"{PACK_FOLDER}.nodes.engine.video.read").description(str(saved.path)).audio.waveform[0]
    assert int(heard.abs().argmax()) / 48000 == pytest.approx(1.5, abs=0.06)


def test_nothing_about_the_workflow_is_written_under_disable_metadata(pack: ModuleType, lazy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.cli_args
    video = pack.nodes.host.video.lazy.LazyVideo(lazy.stream, prompt="a fox")
    assert pack.nodes.host.video.saving.metadata({"1": {}}, {"workflow": {}}, video) == {"comment": "a fox", "workflow": {}, "prompt": {"1": {}}}
    monkeypatch.setattr(comfy.cli_args.args, "disable_metadata", True)
    assert pack.nodes.host.video.saving.metadata({"1": {}}, {"workflow": {}}, video) == {}


def test_a_spool_without_room_names_the_temp_folder(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(pack.nodes.host.video.saving.WritingFailed, match=f"No space left.*{folders / 'temp'}"):
        save(pack, formats, lazy, reverse=True)
    assert list((folders / "output").rglob("*.*")) == []


def test_an_unwritable_folder_is_told(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any) -> None:
    (folders / "output" / "video").touch()  # a file where the folder should be
    with pytest.raises(pack.nodes.host.video.saving.WritingFailed, match="could not be written.*make them writable.*kept as"):
        save(pack, formats, lazy)


@pytest.mark.parametrize("prefix", ["", "  ", "video/", "video\\", "../clip", "..\\clip", "/tmp/clip", "video/../../clip", "video/..", "C:/clip",
                                    "C:\\clip", "\\\\server\\share\\clip", "clips/" * 1000 + "clip"])
def test_prefixes_that_name_no_file_below_the_output_folder_are_refused(pack: ModuleType, folders: Path, prefix: str) -> None:
    with pytest.raises(ValueError, match="filename_prefix (is|and)"):
        pack.nodes.host.video.places.check_prefix(prefix)


@pytest.mark.parametrize(("prefix", "name"), [
    ("a:b", "a_b"), ("fox? \"yes\"|no<>*", "fox_ _yes__no___"), ("video\\%width%x%height%", "video/48x32"), ("half \ud83e", "half _"),
    ("%date:yyyy%", f"{datetime.datetime.now().astimezone().year}"), ("nul/con", "_nul/_con"), ("%Unknown.widget%", "%Unknown.widget%")])
def test_any_name_that_is_not_refused_before_sampling_can_be_written(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any, prefix: str,
                                                                     name: str) -> None:
    pack.nodes.host.video.places.check_prefix(prefix)
    saved = [save(pack, formats, lazy, prefix).path for _ in range(2)]
    assert [str(path.relative_to(folders / "output").as_posix()) for path in saved] == [f"{name}_0000{number}_.mp4" for number in (1, 2)]


@pytest.mark.parametrize("prefix", ["n" * 400, "\U0001f98a" * 100, "f" * 300 + "/clip"])
def test_long_names_are_shortened_and_still_count_up(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any, prefix: str) -> None:
    first, second = (save(pack, formats, lazy, prefix).path for _ in range(2))
    assert first.name.endswith("_00001_.mp4") and second.name == first.name.replace("_00001_", "_00002_")


PROMPT = {"1": {"class_type": "Wan22Sampler", "inputs": {"seed": 7, "samples": ["2", 0], "solver": "a/b:c"}},
          "2": {"class_type": "Wan22EmptyLatent", "inputs": {"width": 640}, "_meta": {"title": "Canvas"}}}


@pytest.mark.parametrize(("prefix", "filled"), [
    ("%Wan22Sampler.seed%", "7"), ("%Canvas.width%/%Wan22Sampler.solver%", "640/a_b_c"),
    ("%Wan22Sampler.samples%", "%Wan22Sampler.samples%"), ("%Wan22Sampler.nothing%", "%Wan22Sampler.nothing%"),
    ("%nobody.seed%", "%nobody.seed%"), ("50%", "50%"), ("%width%.%height%", "%width%.%height%")])
def test_widgets_are_filled_in_for_prompts_that_no_front_end_sent(pack: ModuleType, prefix: str, filled: str) -> None:
    assert pack.nodes.host.video.places.filled_in(prefix, PROMPT) == filled
    assert pack.nodes.host.video.places.filled_in(prefix, None) == prefix


def test_a_video_that_cannot_get_its_name_is_told_and_kept(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: object) -> None:
        raise PermissionError(errno.EACCES, "held")

    monkeypatch.setattr("os.replace", held)
    monkeypatch.setattr("shutil.copyfile", held)
    monkeypatch.setattr("time.sleep", lambda _: None)
    with pytest.raises(pack.nodes.host.video.saving.WritingFailed, match=r"the finished video is kept as .*clip_00001_\.mp4\.part"):
        save(pack, formats, lazy)
    (part,) = (folders / "output").rglob("*.part")
    assert videos.facts(part).frames == 20


@pytest.mark.parametrize(("sound", "warning"), [
    (torch.full((2, 96000), torch.nan), "are NaN or infinite"), (torch.zeros(2, 0), "without sound"), (torch.rand(7, 96000), "it is written in 5.1"),
    (torch.rand(2, 96000), None)])
def test_sound_never_costs_the_video(pack: ModuleType, formats: ModuleType, folders: Path, sound: torch.Tensor, warning: str | None) -> None:
    from comfy_api.latest import InputImpl, Types
    audio: Any = {"waveform": sound[None], "sample_rate": 48000}
    clip = InputImpl.VideoFromComponents(Types.VideoComponents(images=NUMBERED, audio=audio, frame_rate=Fraction(10)))
    for reverse in (False, True):
        saved = save(pack, formats, clip, reverse=reverse)
        assert videos.facts(saved.path).frames == 20
        assert [warning in text for text in saved.warnings] == ([True] if warning else [])


@pytest.mark.parametrize("audio", [
    {"waveform": torch.zeros(0, 2, 100), "sample_rate": 48000}, {"waveform": torch.zeros(2, 100), "sample_rate": 44100.0}, {"sample_rate": 48000},
    {"waveform": torch.zeros(100), "sample_rate": 48000}, {"waveform": torch.zeros(1, 2, 100)},
    {"waveform": torch.zeros(1, 2, 9), "sample_rate": float("nan")},
    {"waveform": None, "sample_rate": None}, {"waveform": torch.zeros(1, 1, 2, 100), "sample_rate": 48000}])
def test_sound_of_any_shape_never_costs_the_video(pack: ModuleType, formats: ModuleType, folders: Path, audio: Any) -> None:
    """As other packs' nodes hand it over."""
    from comfy_api.latest import InputImpl, Types
    clip = InputImpl.VideoFromComponents(Types.VideoComponents(images=NUMBERED, audio=audio, frame_rate=Fraction(10)))
    assert videos.facts(save(pack, formats, clip).path).frames == 20


def test_an_empty_video_is_refused(pack: ModuleType, formats: ModuleType, folders: Path) -> None:
    from comfy_api.latest import InputImpl, Types
    empty = InputImpl.VideoFromComponents(Types.VideoComponents(images=torch.zeros(0, 32, 48, 3), audio=None, frame_rate=Fraction(8)))
    with pytest.raises(pack.nodes.host.video.saving.WritingFailed, match="has no frames"):
        save(pack, formats, empty)
    assert list((folders / "output").rglob("*.*")) == []
