"""Save Video's other ways out: pictures, loops, another sound, a copy without metadata, and looking without saving."""

import errno
import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import videos
from clips import NUMBERED
from comfyui import PACK_FOLDER, ComfyUI, Prompt, PromptFailed, PromptRejected

PICTURES = ("webp", "gif", "png", "jpg")


@pytest.fixture
def save(pack: ModuleType, folders: Path, formats: ModuleType) -> Any:
    saving, edit = pack.nodes.host.video.saving, pack.nodes.engine.video.edit

    def save_each(video: Any, container: str = "mp4", prefix: str = "clip", loop: str = "off", reverse: bool = False, **more: Any) -> Any:
        video_format = formats.VideoFormat("high", "fast", container=container)
        saved = saving.save_each(video, saving.Order(prefix, video_format, edit.Edit(reverse, loop), {"workflow": {"nodes": []}}, **more))
        return saved, saving.on_disk(video, saved)

    return save_each


def levels_of(video: Any) -> np.ndarray:
    shown: np.ndarray = video.get_components().images.mean(dim=(1, 2, 3)).numpy()
    return shown


def silent(lazy: Any, pack: ModuleType, **changes: Any) -> Any:
    return pack.nodes.host.video.lazy.LazyVideo(replace(lazy.stream, audio=None, **changes), lazy.keep_latent)


@pytest.mark.parametrize("container", PICTURES)
def test_what_is_saved_as_pictures_goes_on_as_a_video(pack: ModuleType, folders: Path, lazy: Any, save: Any, container: str) -> None:
    """With its rate; without its sound, which is told."""
    (saved,), video = save(lazy, container)
    assert saved.path == folders / "output" / ("clip_00001_" if container in ("png", "jpg") else f"clip_00001_.{container}")
    assert (video.get_frame_count(), video.get_frame_rate(), video.get_dimensions()) == (20, 10, (48, 32))
    assert np.abs(levels_of(video) - NUMBERED[:, 0, 0, 0].numpy()).max() < 0.01
    assert video.get_components().audio is None
    assert [f"{container} holds none" in warning for warning in saved.warnings] == [True]


@pytest.mark.parametrize("container", ["mp4", "gif", "png"])
def test_each_video_of_a_batch_is_a_loop_of_its_own(pack: ModuleType, lazy: Any, save: Any, container: str) -> None:
    saved, video = save(silent(lazy, pack, seams=(5, 17)), container, loop="ping-pong")
    assert [each.stream.count for each in saved] == list(video.stream.lengths) == [8, 22, 4]
    levels = NUMBERED[:, 0, 0, 0].numpy()
    loops = [np.concatenate([part, part[1:-1][::-1]]) for part in np.split(levels, [5, 17])]
    assert np.abs(levels_of(video) - np.concatenate(loops)).max() < 0.01


def test_a_loop_and_its_sound_last_equally_long(pack: ModuleType, lazy: Any, save: Any) -> None:
    for loop, frames in (("ping-pong", 38), ("cross-fade", 16)):
        (saved,), _ = save(lazy, "mp4", loop=loop)
        assert videos.facts(saved.path).frames == frames
        sound = importlib.import_module(f"{PACK_FOLDER}.nodes.engine.video.read").description(str(saved.path)).audio
        assert sound.waveform.shape[1] / sound.sample_rate == pytest.approx(frames / 10, abs=0.03)


@pytest.mark.parametrize(("seconds", "heard"), [(0.5, 0.5), (9.0, 2.0)])
def test_another_sound_takes_the_place_of_the_videos_own(pack: ModuleType, lazy: Any, save: Any, seconds: float, heard: float) -> None:
    sound = pack.nodes.host.video.lazy.sound({"waveform": torch.full((1, 1, int(16000 * seconds)), 0.5), "sample_rate": 16000})
    (saved,), _ = save(lazy, "mp4", sound=sound)
    read = importlib.import_module(f"{PACK_FOLDER}.nodes.engine.video.read").description(str(saved.path)).audio
    assert read.sample_rate == 16000
    loud = (read.waveform[0].abs() > 0.25).nonzero()
    assert int(loud.max()) / 16000 == pytest.approx(heard, abs=0.1)


@pytest.mark.parametrize("container", ["mp4", *PICTURES])
def test_a_copy_without_metadata_lies_beside_the_file(pack: ModuleType, folders: Path, lazy: Any, save: Any, container: str) -> None:
    (saved,), _ = save(silent(lazy, pack), container, copy_without_metadata=True)
    copy = saved.path.with_name(saved.path.name.replace("_00001_", "_00001_clean"))
    assert sorted((folders / "output").iterdir()) == sorted([saved.path, copy])
    for file in copy.iterdir() if copy.is_dir() else [copy]:
        assert b"workflow" not in file.read_bytes()
    assert saved.warnings == ()


def test_a_copy_that_cannot_be_made_costs_nothing_else(pack: ModuleType, lazy: Any, save: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pack.nodes.host.video.saving, "copy_without_tags", full)
    (saved,), _ = save(lazy, copy_without_metadata=True)
    assert saved.path.exists()
    assert "the copy without metadata could not be written" in saved.warnings[0] and "Make room" in saved.warnings[0]


def test_a_slash_at_the_end_names_the_folder_of_a_sequence(pack: ModuleType, folders: Path, lazy: Any, save: Any) -> None:
    """Of a batch the second video's has a number; a folder in use is refused before it is touched."""
    import comfy_api.latest
    saved, _ = save(silent(lazy, pack, seams=(5,)), "png", "shots/%width%/", copy_without_metadata=True)
    shots = folders / "output" / "shots"
    assert [each.path for each in saved] == [shots / "48", shots / "48_2"]
    assert [len(list(each.path.iterdir())) for each in saved] == [5, 15]
    assert len(list((shots / "48_clean").iterdir())) == 5
    shown = saved[1].shown(comfy_api.latest.io.FolderType.output)
    assert (shown["filename"], shown["subfolder"]) == ("00001.png", "shots/48_2")
    with pytest.raises(ValueError, match="is not empty, so that two sequences would mix.*leave out the /"):
        pack.nodes.host.video.places.check_prefix("shots/48/", "png")
    with pytest.raises(pack.nodes.host.video.saving.WritingFailed, match="is not empty.*The latent is kept"):
        save(lazy, "jpg", "shots/48/")
    assert len(list((shots / "48").iterdir())) == 5


@pytest.mark.parametrize("prefix", ["/", "../", "../x/", "video/../", "/tmp/clips/"])
def test_folders_that_are_none_below_the_output_folder_are_refused(pack: ModuleType, folders: Path, prefix: str) -> None:
    with pytest.raises(ValueError, match="filename_prefix is"):
        pack.nodes.host.video.places.check_prefix(prefix, "png")


@pytest.mark.parametrize("container", PICTURES)
def test_pictures_can_be_interrupted_and_leave_nothing(pack: ModuleType, folders: Path, lazy: Any, save: Any, container: str) -> None:
    import comfy.model_management

    def interrupted_at_the_end() -> Any:
        yield from NUMBERED.split(4)
        comfy.model_management.interrupt_current_processing()

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        save(silent(lazy, pack, pull=interrupted_at_the_end), container, loop="ping-pong")
    assert list(folders.rglob("*.*")) == []


@pytest.mark.parametrize("container", PICTURES)
def test_a_full_disk_keeps_the_latent(pack: ModuleType, folders: Path, lazy: Any, save: Any, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    pictures = pack.nodes.engine.video.pictures
    place = (pictures.gif.Track, "encode") if container == "gif" else (pictures.stills, "_png" if container == "png" else "_by_pillow")
    monkeypatch.setattr(*place, full)
    with pytest.raises(pack.nodes.host.video.saving.WritingFailed, match=r"No space left.*Make room in .*output.*kept as .*\.latent"):
        save(lazy, container)
    assert [path for path in (folders / "output").rglob("*") if path.name != "output"] == []


def graph(**inputs: Any) -> Prompt:
    """Three black pictures as a video of 60 frames per second, and a second of silence."""
    return {"image": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 32, "batch_size": 3, "color": 0}},
            "sound": {"class_type": "EmptyAudio", "inputs": {"duration": 1.0, "sample_rate": 44100, "channels": 2}},
            "video": {"class_type": "CreateVideo", "inputs": {"images": ["image", 0], "fps": 60.0}},
            "save": {"class_type": "Wan22SaveVideo", "inputs": {"video": ["video", 0], "filename_prefix": "ways", "video_quality": "low",
                                                                "video_write_mode": "fast", "reverse_video": False, **inputs}}}


@pytest.mark.parametrize(("inputs", "words"), [
    ({"container": "gif"}, "60 frames per second, and browsers play a gif of more than 50 slowly"),
    ({"container": "webp", "audio": ["sound", 0]}, "audio is connected, and webp holds no sound. Disconnect it, or choose the container mp4"),
])
def test_what_cannot_be_written_is_refused_before_anything_runs(server: ComfyUI, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(PromptFailed, match=words) as failed:
        server.run(graph(**inputs))
    assert "Wan22SaveVideo" in str(failed.value)


@pytest.mark.parametrize(("inputs", "words"), [
    ({"container": "png", "codec": "av1"}, "codec is 'av1', but png holds pictures"),
    ({"container": "jpg", "bit_depth": 10}, "bit_depth is 10, but jpg holds 8 bits per colour"),
    ({"loop": "round"}, "loop"), ({"container": "mp4", "filename_prefix": "folder/"}, "filename_prefix is 'folder/'")])
def test_what_no_file_can_be_is_refused_when_it_is_sent(server: ComfyUI, inputs: dict[str, Any], words: str) -> None:
    with pytest.raises(PromptRejected, match=words):
        server.queue(graph(**inputs))


def test_looking_without_saving_shows_a_file_in_the_temp_folder(server: ComfyUI) -> None:
    outputs = server.run(graph(save_output=False, container="webp", audio=None))
    (shown,) = outputs["save"]["images"]
    assert (shown["type"], shown["filename"], outputs["save"]["animated"]) == ("temp", "ways_00001_.webp", [True])
    (path,) = server.saved_videos(outputs)
    with Image.open(path) as animation:
        assert animation.n_frames == 3
        assert "prompt:" in animation.getexif()[0x0110]
    (shown,) = server.run(graph(container="png", loop="ping-pong"))["save"]["images"]
    assert (shown["filename"], shown["subfolder"], shown["type"]) == ("00001.png", "ways_00001_", "output")
