"""Saving a VIDEO: whole files only, sound kept, backwards, full disks and bad prefixes told clearly, the latent not lost."""

import errno
import importlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import videos
from comfyui import PACK_FOLDER

NUMBERED = torch.linspace(0.1, 0.9, 20)[:, None, None, None].expand(20, 32, 48, 3)
RISING = torch.linspace(0, 1, 48000 * 2)[None] * torch.sin(torch.arange(96000) / 10)


@pytest.fixture
def folders(pack: ModuleType, tmp_path: Path) -> Iterator[Path]:
    """ComfyUI's output, temp and input folders below `tmp_path`."""
    import folder_paths
    before = {name: getattr(folder_paths, f"get_{name}_directory")() for name in ("output", "temp", "input")}
    for name in before:
        (tmp_path / name).mkdir()
        getattr(folder_paths, f"set_{name}_directory")(str(tmp_path / name))
    yield tmp_path
    for name, folder in before.items():
        getattr(folder_paths, f"set_{name}_directory")(folder)


@pytest.fixture
def formats(pack: ModuleType) -> ModuleType:
    return importlib.import_module(f"{PACK_FOLDER}.nodes.engine.video.formats")


@pytest.fixture
def lazy(pack: ModuleType) -> Any:
    frames = importlib.import_module(f"{PACK_FOLDER}.nodes.engine.frames")
    stream = frames.FrameStream(48, 32, 20, Fraction(10), lambda: frames.chunks(NUMBERED), frames.Audio(RISING, 48000))
    return pack.nodes.host.video.LazyVideo(stream, lambda: pack.nodes.host.decoding.kept_latent(torch.zeros(1, 16, 2, 4, 4)))


def save(pack: ModuleType, formats: ModuleType, video: Any, prefix: str = "video/clip", reverse: bool = False) -> Any:
    return pack.nodes.host.saving.save(video, prefix, formats.VideoFormat("maximum", "fast"), reverse, {})


def loudness(path: Path) -> np.ndarray:
    """Of the first and the last tenth of the sound."""
    samples = importlib.import_module(f"{PACK_FOLDER}.nodes.engine.video.read").audio(str(path)).waveform[0].numpy()
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
    with pytest.raises(pack.nodes.host.saving.WritingFailed, match=r"No space left.*Make room in .*output.*kept as .*\.latent"):
        save(pack, formats, lazy)
    assert list((folders / "output").rglob("*.*")) == []
    assert len(list((folders / "input").iterdir())) == 1


def test_a_spool_without_room_names_the_temp_folder(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    with pytest.raises(pack.nodes.host.saving.WritingFailed, match=f"No space left.*{folders / 'temp'}"):
        save(pack, formats, lazy, reverse=True)
    assert list((folders / "output").rglob("*.*")) == []


def test_an_unwritable_folder_is_told(pack: ModuleType, formats: ModuleType, folders: Path, lazy: Any) -> None:
    (folders / "output" / "video").touch()  # a file where the folder should be
    with pytest.raises(pack.nodes.host.saving.WritingFailed, match="could not be written.*make it writable.*kept as"):
        save(pack, formats, lazy)


@pytest.mark.parametrize("prefix", ["", "  ", "video/", "../clip", "/tmp/clip", "video/../../clip"])
def test_prefixes_that_name_no_file_below_the_output_folder_are_refused(pack: ModuleType, folders: Path, prefix: str) -> None:
    with pytest.raises(ValueError, match="filename_prefix is"):
        pack.nodes.host.saving.check_prefix(prefix)


def test_an_empty_video_is_refused(pack: ModuleType, formats: ModuleType, folders: Path) -> None:
    from comfy_api.latest import InputImpl, Types
    empty = InputImpl.VideoFromComponents(Types.VideoComponents(images=torch.zeros(0, 32, 48, 3), audio=None, frame_rate=Fraction(8)))
    with pytest.raises(ValueError, match="has no frames"):
        save(pack, formats, empty)
    assert list((folders / "output").rglob("*.*")) == []
