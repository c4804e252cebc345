"""Tiny experts through ComfyUI's loader, in float32 and in float64, the sampler around them, and a video with folders to save it in."""

import importlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny_weights
from clips import NUMBERED, RISING
from comfyui import PACK_FOLDER
from sampling_runs import TOKENS, Sample


@pytest.fixture(scope="session")
def weights() -> tuple[tiny_weights.Weights, tiny_weights.Weights]:
    return tiny_weights.expert(seed=21), tiny_weights.expert(seed=22)


@pytest.fixture(scope="session")
def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    positive, negative = torch.randn(2, TOKENS, 4096, generator=generator)
    positive[40:] = 0
    negative[3:] = 0
    return positive, negative


@pytest.fixture(scope="session")
def experts(pack: ModuleType, models: Path, weights: tuple[tiny_weights.Weights, tiny_weights.Weights]) -> Iterator[tuple[Any, Any]]:
    """Both experts in float32, loaded by ComfyUI."""
    files = [models / "diffusion_models" / f"float32_{side}.safetensors" for side in ("high", "low")]
    for file, tensors in zip(files, weights, strict=True):
        save_file(tensors, file)
    high, low = (pack.nodes.host.models.files.load_expert(file.name, "default") for file in files)
    yield high, low
    for file in files:
        file.unlink()


@pytest.fixture
def lora_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: ModuleType) -> Iterator[Path]:
    """ComfyUI's loras folder, empty."""
    import folder_paths
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors", ".pt"}))
    folder_paths.filename_list_cache.pop("loras", None)
    yield tmp_path
    folder_paths.filename_list_cache.pop("loras", None)


@pytest.fixture(scope="session")
def packed_experts(pack: ModuleType, weights: tuple[tiny_weights.Weights, tiny_weights.Weights]) -> tuple[Any, Any]:
    """The same experts with weights that rest packed, as those of GGUF files do."""
    packed_weights: Any = importlib.import_module("packed_weights")  # it needs ComfyUI
    high, low = (packed_weights.packed_expert(tensors) for tensors in weights)
    return high, low


@pytest.fixture(scope="session")
def exact_experts(pack: ModuleType, experts: tuple[Any, Any]) -> tuple[Any, Any]:
    """The same weights in float64."""
    high, low = (pack.nodes.host.models.files.load_expert(f"float32_{side}.safetensors", "default") for side in ("high", "low"))
    for expert in (high, low):
        expert.model.double()
        expert.model.diffusion_model.dtype = torch.float64
    return high, low


@pytest.fixture(scope="session")
def sample(pack: ModuleType, experts: tuple[Any, Any], prompts: tuple[torch.Tensor, torch.Tensor]) -> Sample:
    return Sample(pack, experts, prompts)


@pytest.fixture
def exact_sample(float64: None, pack: ModuleType, exact_experts: tuple[Any, Any], prompts: tuple[torch.Tensor, torch.Tensor]) -> Sample:
    """ComfyUI, the sampler and the network all in float64."""
    return Sample(pack, exact_experts, (prompts[0].double(), prompts[1].double()))


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
    return pack.nodes.host.video.lazy.LazyVideo(stream, lambda: pack.nodes.host.video.decoding.kept_latent(torch.zeros(1, 16, 2, 4, 4)))
