"""Decoding as a stream equals core's VAEDecode, survives little memory, and loses no latent."""

import importlib
import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tiny_weights

TOLERANCE = 1e-9  # of a brightness in 0..1, in float64
LATENT = torch.randn(1, 16, 5, 6, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def vae(pack: ModuleType, models: Path) -> Any:
    """The tiny Wan VAE through core's Load VAE."""
    return core_nodes().VAELoader().load_vae(tiny_weights.VAE)[0]


@pytest.fixture(scope="module")
def exact_vae(pack: ModuleType, models: Path) -> Any:
    """The same in float64."""
    vae = core_nodes().VAELoader().load_vae(tiny_weights.VAE)[0]
    vae.first_stage_model.double()
    vae.vae_dtype = torch.float64
    return vae


@pytest.fixture
def input_folder(pack: ModuleType, tmp_path: Path) -> Iterator[Path]:
    import folder_paths
    before = folder_paths.get_input_directory()
    folder_paths.set_input_directory(str(tmp_path))
    yield tmp_path
    folder_paths.set_input_directory(before)


def core_nodes() -> ModuleType:
    return importlib.import_module("nodes")


def core_decoded(vae: Any, samples: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return core_nodes().VAEDecode().decode(vae, {"samples": samples})[0]


def pulled(pack: ModuleType, vae: Any, samples: torch.Tensor, **extra: Any) -> torch.Tensor:
    video = pack.nodes.host.video.decoding.decode({"samples": samples, **extra}, vae, 16)
    return torch.cat([chunk.cpu() for chunk in video.stream.pull()])


@pytest.mark.parametrize("latent_frames", [1, 2, 3, 4, 5, 6])
def test_the_stream_equals_cores_decode(float64: None, pack: ModuleType, exact_vae: Any, latent_frames: int) -> None:
    samples = torch.randn(1, 16, latent_frames, 6, 10, generator=torch.Generator().manual_seed(latent_frames))
    torch.testing.assert_close(pulled(pack, exact_vae, samples), core_decoded(exact_vae, samples), atol=TOLERANCE, rtol=0)


def test_a_batch_becomes_one_clip_after_the_other(float64: None, pack: ModuleType, exact_vae: Any) -> None:
    batch = torch.cat([LATENT, LATENT.flip(2)]).double()
    torch.testing.assert_close(pulled(pack, exact_vae, batch), core_decoded(exact_vae, batch).reshape(-1, 48, 80, 3), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("asked", [5, 2])
def test_a_batch_knows_its_videos(float64: None, pack: ModuleType, exact_vae: Any, asked: int) -> None:
    """Each clip is what its latent alone decodes to, of one pull, and core's nodes get all frames in order."""
    batch = torch.randn(3, 16, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    video = pack.nodes.host.video.decoding.decode({"samples": batch, "wan22_num_frames": asked}, exact_vae, 16)
    alone = [pulled(pack, exact_vae, latent, wan22_num_frames=asked) for latent in batch.split(1)]
    assert video.stream.lengths == (asked,) * 3
    for clip, expected in zip(video.stream.clips(), alone, strict=True):
        torch.testing.assert_close(torch.cat(list(clip.pull())), expected, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(video.get_components().images, torch.cat(alone), atol=TOLERANCE, rtol=0)
    assert video.as_trimmed(0, (asked + 1) / 16).stream.lengths == (asked, 1)


def test_it_can_be_pulled_again_and_by_two_at_once(pack: ModuleType, vae: Any) -> None:
    stream = pack.nodes.host.video.decoding.decode({"samples": LATENT}, vae, 16).stream
    side_by_side = [torch.cat(both) for both in zip(*zip(stream.pull(), stream.pull(), strict=True), strict=True)]
    assert torch.equal(*side_by_side)


@pytest.mark.parametrize("asked", [17, 16, 15, 14])
def test_exactly_the_frames_that_were_asked_for(pack: ModuleType, vae: Any, asked: int) -> None:
    video = pack.nodes.host.video.decoding.decode({"samples": LATENT, "wan22_num_frames": asked}, vae, 24)
    assert (video.get_frame_count(), video.get_frame_rate(), video.get_dimensions()) == (asked, Fraction(24), (80, 48))
    assert len(torch.cat(list(video.stream.pull()))) == asked


def test_only_the_next_frames_are_decoded(pack: ModuleType, vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch, vae)
    clip = pack.nodes.host.video.decoding.decode({"samples": LATENT}, vae, 16).stream.pull()
    assert calls == []
    next(clip)
    assert len(calls) == 1


def count_calls(monkeypatch: pytest.MonkeyPatch, vae: Any, pixels_that_fit: float = math.inf, fail: Exception | None = None) -> list[torch.Size]:
    """Note the shape of each call of the decoder, and raise `fail` for latents with more than `pixels_that_fit`."""
    decoder = vae.first_stage_model.decoder
    forward, calls = decoder.forward, []

    def noted(x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        calls.append(x.shape)
        if x.shape[-1] * x.shape[-2] > pixels_that_fit:
            raise fail or importlib.import_module("comfy.model_management").OOM_EXCEPTION("no room")
        return forward(x, *args, **kwargs)

    monkeypatch.setattr(decoder, "forward", noted)
    return calls


def smooth_latent(height: int, width: int) -> torch.Tensor:
    rows, columns = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)
    return torch.stack([rows * math.cos(channel) + columns * math.sin(channel) for channel in range(16)])[None, :, None].repeat(1, 1, 2, 1, 1)


@pytest.mark.parametrize(("height", "width", "tile"), [(6, 72, 64), (6, 40, 32), (24, 40, 16)])
def test_out_of_memory_goes_on_in_tiles_without_seams(pack: ModuleType, vae: Any, monkeypatch: pytest.MonkeyPatch, height: int, width: int,
                                                      tile: int) -> None:
    samples = smooth_latent(height, width)
    whole = pulled(pack, vae, samples)
    calls = count_calls(monkeypatch, vae, min(height, tile) * tile)
    tiled = pulled(pack, vae, samples)
    assert calls[-1][-1] == tile
    assert tiled.shape == whole.shape
    cut = pack.nodes.host.video.vae.windows(height, width, tile, tile // 4)
    for side, edges in ((1, {edge for window in cut for edge in (window.top, window.bottom)} - {0, height}),
                        (2, {edge for window in cut for edge in (window.left, window.right)} - {0, width})):
        steps = tiled.diff(dim=side).abs().mean(dim=[axis for axis in range(4) if axis != side])
        at_edges = torch.zeros_like(steps, dtype=torch.bool)
        at_edges[[edge * 8 - 1 for edge in edges]] = True
        assert not edges or steps[at_edges].max() <= steps[~at_edges].max()


def test_features_leave_the_gpu_last(pack: ModuleType) -> None:
    """On an H200, tiles that moved theirs out and in at each latent frame had not decoded 33 frames of 720p after 40 s; whole frames take 2."""
    module = pack.nodes.host.video.vae
    assert [(way.tile, way.parks) for way in module.ways(90, True)] == [(90, False), (64, False), (32, False), (16, False),
                                                                        (64, True), (32, True), (16, True)]
    assert [way.tile for way in module.ways(40, False)] == [40, 32, 16]


def test_tiles_that_rest_elsewhere_make_the_same_pictures(pack: ModuleType, vae: Any) -> None:
    module = pack.nodes.host.video.vae
    samples = torch.randn(1, 16, 6, 4, 24, generator=torch.Generator().manual_seed(8))
    here, parked = (torch.cat([chunk.cpu() for chunk in module._decoded_in_tiles(vae, samples, module.Way(16, parks))]) for parks in (False, True))
    torch.testing.assert_close(parked, here)


def test_frames_that_are_out_already_are_not_repeated(pack: ModuleType, vae: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = smooth_latent(12, 36)
    whole = pulled(pack, vae, samples)
    clip = pack.nodes.host.video.decoding.decode({"samples": samples}, vae, 16).stream.pull()
    first = next(clip).cpu()
    count_calls(monkeypatch, vae, 12 * 32)
    rest = torch.cat([chunk.cpu() for chunk in clip])
    assert torch.equal(first, whole[:1])
    assert len(rest) == len(whole) - 1
    assert (rest - whole[1:]).abs().mean() < (rest - whole[:1]).abs().mean()


def test_memory_that_never_suffices_keeps_the_latent(pack: ModuleType, vae: Any, input_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count_calls(monkeypatch, vae, 0)
    with pytest.raises(pack.nodes.host.video.decoding.DecodingFailed, match=r"no room.*--cpu-vae.*kept as .*\.latent") as failure:
        pulled(pack, vae, LATENT)
    (kept,) = input_folder.iterdir()
    assert str(kept) in str(failure.value)
    assert torch.equal(core_nodes().LoadLatent().load(kept.name)[0]["samples"], LATENT)


def test_nan_from_the_vae_is_not_written_as_black(pack: ModuleType, vae: Any, input_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae, "process_output", lambda pictures: pictures * math.nan)
    with pytest.raises(pack.nodes.host.video.decoding.DecodingFailed, match="NaN.*--fp32-vae.*kept as"):
        pulled(pack, vae, LATENT)


def test_runs_that_fail_in_one_second_keep_a_latent_each(pack: ModuleType, input_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding = pack.nodes.host.video.decoding
    monkeypatch.setattr(decoding.time, "strftime", lambda form: "wan22_kept_now")
    paths = [decoding.kept_latent(torch.full((1,), float(run))) for run in range(3)]
    assert [load_file(path)["latent_tensor"].item() for path in paths] == [0, 1, 2]


def test_a_latent_that_cannot_be_kept_leaves_nothing(pack: ModuleType, input_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    decoding = pack.nodes.host.video.decoding
    monkeypatch.setattr(decoding, "save_file", full)
    assert "No space left" in decoding.where_kept(lambda: decoding.kept_latent(LATENT))
    assert list(input_folder.iterdir()) == []


def test_interruption_is_no_failure(pack: ModuleType, vae: Any, input_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted = importlib.import_module("comfy.model_management").InterruptProcessingException
    count_calls(monkeypatch, vae, 0, fail=interrupted())
    with pytest.raises(interrupted):
        pulled(pack, vae, LATENT)
    assert list(input_folder.iterdir()) == []


def test_a_vae_that_was_unloaded_between_two_frames_is_loaded_again(pack: ModuleType, vae: Any) -> None:
    management = importlib.import_module("comfy.model_management")
    clip = pack.nodes.host.video.decoding.decode({"samples": LATENT}, vae, 16).stream.pull()
    next(clip)
    management.unload_all_models()
    assert vae.patcher not in [loaded.model for loaded in management.current_loaded_models]
    next(clip)
    assert vae.patcher in [loaded.model for loaded in management.current_loaded_models]


def test_another_vae_decodes_in_its_own_way(pack: ModuleType, vae: Any) -> None:
    class TiledVAE:
        latent_channels = 16

        def decode(self, samples: torch.Tensor) -> torch.Tensor:
            return vae.decode_tiled(samples, tile_x=4, tile_y=4, overlap=1)

    with torch.inference_mode():  # as the server does; newer versions change its tensors in place
        expected = TiledVAE().decode(LATENT)[0]
        assert torch.equal(pulled(pack, TiledVAE(), LATENT), expected)


@pytest.mark.parametrize(("samples", "complaint"), [
    (torch.zeros(1, 48, 2, 4, 4), r"samples has shape \(1, 48, 2, 4, 4\); Wan 2.2 T2V A14B needs"),
    (torch.zeros(1, 16, 4, 4), r"samples has shape \(1, 16, 4, 4\)"),
    (torch.full((1, 16, 2, 4, 4), math.nan), "samples holds NaN"),
])
def test_latents_that_do_not_fit_are_refused(pack: ModuleType, vae: Any, samples: torch.Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        pack.nodes.host.video.decoding.decode({"samples": samples}, vae, 16)


def test_another_models_vae_is_refused_before_it_decodes(pack: ModuleType) -> None:
    class OtherVAE:
        latent_channels = 48

    with pytest.raises(ValueError, match="this VAE has 48 latent channels.*wan_2.1_vae.safetensors"):
        pack.nodes.host.video.decoding.decode({"samples": LATENT}, OtherVAE(), 16)


@pytest.mark.parametrize("rate", [3, 61])
def test_rates_out_of_range_are_refused(pack: ModuleType, vae: Any, rate: int) -> None:
    decode: Callable[..., Any] = pack.nodes.host.video.decoding.decode
    with pytest.raises(ValueError, match=f"frames_per_second is {rate}; it must be between 4 and 60"):
        decode({"samples": LATENT}, vae, rate)
