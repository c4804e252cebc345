"""Interpolation on VIDEO: frames, rate and sound as promised, lazily, with real RIFE 4.26 weights; bad input told early."""

import importlib
import importlib.util
import itertools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import clips
import interpolation_oracles as oracles
import tiny_weights
import videos
import workflows
from comfyui import PACK_FOLDER, ComfyUI, Prompt, PromptFailed, PromptRejected

Build = Callable[..., Prompt]


@pytest.fixture(scope="module")
def host(pack: ModuleType) -> Any:
    return pack.nodes.host.video.interpolation


@pytest.fixture(scope="module")
def rife(host: Any) -> Any:
    return host.load_interpolator(tiny_weights.RIFE)


@pytest.fixture
def scene(pack: ModuleType) -> Any:
    from comfy_api.latest import InputImpl, Types
    sound = {"waveform": torch.rand(1, 1, 16000) - 0.5, "sample_rate": 16000}
    images = clips.clip("bikes.mp4", 2, 5)[:, :96, :128].contiguous()
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=sound, frame_rate=Fraction(5)))


def core_interpolator() -> Any:
    import comfy.model_patcher
    if importlib.util.find_spec("comfy_extras.nodes_frame_interpolation"):
        loader = importlib.import_module("comfy_extras.nodes_frame_interpolation").FrameInterpolationModelLoader
        return loader.execute(tiny_weights.RIFE).args[0]

    class CoreNetwork(torch.nn.Module):
        def state_dict(self, *_: Any, **__: Any) -> Any:
            return oracles.rife_4_26_weights()

    return comfy.model_patcher.ModelPatcher(CoreNetwork(), torch.device("cpu"), torch.device("cpu"))


@pytest.mark.parametrize("new_frames", [1, 2, 3, 4])
@pytest.mark.parametrize("adjust", [True, False])
def test_frames_rate_and_sound(host: Any, rife: Any, scene: Any, new_frames: int, adjust: bool) -> None:
    made = host.interpolated(scene, rife, new_frames, adjust, 0.5)
    count = 4 * (new_frames + 1) + 1
    assert (made.get_frame_count(), made.get_frame_rate(), made.get_dimensions()) == (count, 5 * (new_frames + 1) if adjust else 5, (128, 96))
    originals, components = scene.get_components(), made.get_components()
    assert components.images.shape == (count, 96, 128, 3)
    assert torch.equal(components.images[:: new_frames + 1], originals.images)
    assert torch.equal(components.audio["waveform"], originals.audio["waveform"])


@pytest.mark.parametrize("scene_cut", [0.0, 0.5])
@pytest.mark.parametrize("lengths", [(2, 3), (1, 1, 3), (4,)])
def test_videos_of_a_batch_are_interpolated_each_for_itself(host: Any, rife: Any, pack: ModuleType, lengths: tuple[int, ...],
                                                            scene_cut: float) -> None:
    """They are parts of one scene, so that nothing in the pictures tells where the seam is."""
    frames = importlib.import_module(f"{PACK_FOLDER}.nodes.engine.frames")
    scene = clips.clip("bikes.mp4", 2, sum(lengths))[:, :96, :128].contiguous()
    seams = tuple(itertools.accumulate(lengths[:-1]))

    def interpolated(images: torch.Tensor, seams: tuple[int, ...]) -> Any:
        stream = frames.FrameStream(128, 96, len(images), Fraction(8), lambda: frames.chunks(images, 3), seams=seams)
        return host.interpolated(pack.nodes.host.video.lazy.LazyVideo(stream), rife, 2, True, scene_cut)

    batch = interpolated(scene, seams)
    alone = [interpolated(part, ()).get_components().images for part in scene.split(list(lengths))]
    assert batch.stream.lengths == tuple(len(images) for images in alone)
    assert torch.equal(batch.get_components().images, torch.cat(alone))


def test_new_frames_lie_between_their_neighbours(host: Any, rife: Any, pack: ModuleType) -> None:
    """Every second frame of a real clip, put back: closer to the truth than the mean of its neighbours by 5 dB."""
    from comfy_api.latest import InputImpl, Types
    whole = clips.clip("bikes.mp4", 2, 9)[:, :256, :512].contiguous()
    thinned = InputImpl.VideoFromComponents(Types.VideoComponents(images=whole[::2], audio=None, frame_rate=Fraction(8)))
    made = host.interpolated(thinned, rife, 1, True, 0.5).get_components().images
    truth, blend = whole[1::2], (whole[:-2:2] + whole[2::2]) / 2
    quality = {name: -10 * torch.log10((frames - truth).square().mean()) for name, frames in (("rife", made[1::2]), ("blend", blend))}
    assert quality["rife"] > quality["blend"] + 5, quality


def test_none_passes_through_untouched(host: Any, rife: Any, scene: Any) -> None:
    assert host.interpolated(scene, rife, 0, True, 0.5) is scene


@pytest.mark.parametrize("seams", [(), (1, 2)])
def test_pictures_pass_through_at_their_rate(host: Any, rife: Any, pack: ModuleType, seams: tuple[int, ...]) -> None:
    frames = importlib.import_module(f"{PACK_FOLDER}.nodes.engine.frames")
    images = torch.rand(len(seams) + 1, 64, 64, 3)
    pictures = pack.nodes.host.video.lazy.LazyVideo(frames.FrameStream(64, 64, len(images), Fraction(8), lambda: frames.chunks(images), seams=seams))
    made = host.interpolated(pictures, rife, 2, True, 0.5)
    assert (made.get_frame_rate(), made.stream.lengths) == (8, (1,) * len(images))
    assert torch.equal(made.get_components().images, images)


def test_nothing_is_computed_before_a_frame_is_pulled_and_then_one_pair(host: Any, rife: Any, pack: ModuleType) -> None:
    pulled: list[int] = []

    def source() -> Iterator[torch.Tensor]:
        for index in range(50):
            pulled.append(index)
            yield torch.full((1, 64, 64, 3), index / 50)

    stream = importlib.import_module(f"{PACK_FOLDER}.nodes.engine.frames").FrameStream(64, 64, 50, Fraction(16), source)
    made = host.interpolated(pack.nodes.host.video.lazy.LazyVideo(stream), rife, 1, True, 0.5).stream.pull()
    assert pulled == []
    next(made), next(made)
    assert len(pulled) == 2


def test_the_latent_stays_known_for_when_writing_fails(host: Any, rife: Any, pack: ModuleType, scene: Any) -> None:
    lazy = pack.nodes.host.video.lazy.LazyVideo(pack.nodes.host.video.lazy.stream_of(scene), lambda: Path("kept.latent"))
    assert host.interpolated(lazy, rife, 1, True, 0.5).keep_latent() == Path("kept.latent")


def test_interruption_stops_between_frames(host: Any, rife: Any, scene: Any) -> None:
    import comfy.model_management
    made = host.interpolated(scene, rife, 1, True, 0.5).stream.pull()
    next(made)
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        list(made)


def test_the_network_is_comfyuis_to_manage(host: Any, rife: Any, scene: Any) -> None:
    import comfy.model_management
    import comfy.model_patcher
    assert isinstance(rife, comfy.model_patcher.ModelPatcher)
    host.interpolated(scene, rife, 1, True, 0.5).get_components()
    assert any(loaded.model is not None and loaded.model.model is rife.model for loaded in comfy.model_management.current_loaded_models)


def test_a_network_from_cores_loader_gives_the_same_frames(host: Any, rife: Any, scene: Any) -> None:
    """Core's loader keeps the names of the file in a network of its own; 0.3.75 has none, there a stand-in holds just those weights."""
    core = core_interpolator()
    ours, theirs = (host.interpolated(scene, model, 1, True, 0.5).get_components().images for model in (rife, core))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("new_frames", "scene_cut", "complaint"), [
    (5, 0.5, "num_interpolated_frames is 5; it must be between 0 and 4"), (-1, 0.5, "num_interpolated_frames is -1"), (1, 1.5, "scene_cut is 1.5")])
def test_numbers_out_of_range_are_refused(host: Any, rife: Any, scene: Any, new_frames: int, scene_cut: float, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        host.interpolated(scene, rife, new_frames, True, scene_cut)


def test_the_whole_graph_interpolates(server: ComfyUI, small_prompt: Build) -> None:
    (path,) = server.saved_videos(server.run(small_prompt(num_interpolated_frames=1, width=64, height=64)))
    assert videos.facts(path) == videos.VideoFacts(33, 64, 64, Fraction(32), "h264", "yuv420p")
    (path,) = server.saved_videos(server.run(small_prompt(num_interpolated_frames=4, adjust_fps_for_interpolation=False, width=64, height=64)))
    assert videos.facts(path) == videos.VideoFacts(81, 64, 64, Fraction(16), "h264", "yuv420p")


def test_core_writes_what_was_interpolated(server: ComfyUI, small_prompt: Build) -> None:
    prompt = small_prompt(num_interpolated_frames=2, width=64, height=64)
    (save,) = workflows.nodes_of(prompt, "Wan22SaveVideo")
    video = prompt[save]["inputs"]["video"]
    prompt[save] = {"class_type": "SaveVideo", "inputs": {"video": video, "filename_prefix": "core", "format": "auto", "codec": "auto"}}
    (path,) = server.saved_videos(server.run(prompt))
    assert (videos.facts(path).frames, videos.facts(path).rate) == (49, 48)


def test_too_small_a_video_is_told(server: ComfyUI, small_prompt: Build) -> None:
    with pytest.raises(PromptFailed, match="frame 0 is 16x16; interpolation needs at least 32x32"):
        server.run(small_prompt(num_interpolated_frames=1, width=16, height=16))


@pytest.mark.parametrize(("name", "words"), [
    ("missing.safetensors", "'missing.safetensors' is not in models/frame_interpolation. Official files: https://huggingface.co/Comfy-Org/frame"),
    ("expert.safetensors", "which belong to none of the networks FILM, RIFE"),
    ("half.safetensors", "is not a complete safetensors file"),
    ("half.pth", "half.pth"),
])
def test_files_that_hold_no_network_are_refused_at_queue_time(server: ComfyUI, models: Path, small_prompt: Build, name: str, words: str) -> None:
    folder = models / "frame_interpolation"
    whole = (folder / tiny_weights.RIFE).read_bytes()
    (folder / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "half.pth").write_bytes(oracles.rife_4_26_file().read_bytes()[:100_000])
    save_file(tiny_weights.expert(seed=1), folder / "expert.safetensors")
    try:
        with pytest.raises(PromptRejected, match=words.replace(".", r"\.")):
            server.queue(small_prompt(model=name))
    finally:
        for extra in ("half.safetensors", "half.pth", "expert.safetensors"):
            (folder / extra).unlink()


@pytest.mark.parametrize(("choice", "file"), [("rife", tiny_weights.RIFE), ("film", tiny_weights.FILM)])
def test_the_endpoints_names_take_the_file_that_is_there(host: Any, choice: str, file: str) -> None:
    assert host.interpolator_path(choice).name == file


def test_a_file_of_another_name_is_taken_and_a_missing_one_named(host: Any, models: Path, tmp_path: Path) -> None:
    folder = models / "frame_interpolation"
    away, renamed = tmp_path / "away", folder / "my_FILM.safetensors"
    (folder / tiny_weights.FILM).rename(away)
    try:
        with pytest.raises(ValueError, match=r"'film_net_fp16\.safetensors' is not in models/frame_interpolation\. Download it from https://"
                                             r".* Or choose flow in Wan 2\.2 Interpolator Loader, which needs no file\."):
            host.check_interpolator_choice("film")
        away.rename(renamed)
        assert host.interpolator_path("film") == renamed
        assert host.file_chosen_by("film") == str(renamed)
    finally:
        (renamed if renamed.exists() else away).rename(folder / tiny_weights.FILM)


@pytest.mark.parametrize(("choice", "frames"), [("none", 17), ("flow", 33)])
def test_what_needs_no_file(server: ComfyUI, host: Any, small_prompt: Build, choice: str, frames: int) -> None:
    assert host.file_chosen_by(choice) == ""
    (path,) = server.saved_videos(server.run(small_prompt(model=choice, num_interpolated_frames=1, width=64, height=64)))
    assert videos.facts(path).frames == frames


def test_flow_gives_what_a_network_with_weights_gives(host: Any, scene: Any) -> None:
    made = host.interpolated(scene, host.load_interpolator("flow"), 2, True, 0.5)
    components = made.get_components()
    assert (made.get_frame_rate(), made.get_frame_count(), len(components.images)) == (15, 13, 13)
    assert torch.equal(components.images[::3], scene.get_components().images)
    assert torch.equal(components.audio["waveform"], scene.get_components().audio["waveform"])


def test_the_weights_written_for_tests_are_the_published_file(models: Path) -> None:
    path = models / "frame_interpolation" / tiny_weights.RIFE
    assert path.stat().st_size == 22_674_688
    assert len(load_file(path)) == 158
