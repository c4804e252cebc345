"""Tiny experts in float32 through ComfyUI's loader, and the sampler around them, in this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny_weights
from sampling_runs import SHAPE


@pytest.fixture(scope="session")
def weights() -> tuple[tiny_weights.Weights, tiny_weights.Weights]:
    return tiny_weights.expert(seed=21), tiny_weights.expert(seed=22)


@pytest.fixture(scope="session")
def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    positive, negative = torch.randn(2, 512, 4096, generator=generator)
    positive[40:] = 0
    negative[3:] = 0
    return positive, negative


@pytest.fixture(scope="session")
def experts(pack: ModuleType, models: Path, weights: tuple[tiny_weights.Weights, tiny_weights.Weights]) -> Iterator[tuple[Any, Any]]:
    """Both experts in float32, loaded by ComfyUI."""
    files = [models / "diffusion_models" / f"float32_{side}.safetensors" for side in ("high", "low")]
    for file, tensors in zip(files, weights, strict=True):
        save_file(tensors, file)
    high, low = (pack.nodes.host.models.load_expert(file.name, "default") for file in files)
    yield high, low
    for file in files:
        file.unlink()


@pytest.fixture(scope="session")
def sample(pack: ModuleType, experts: tuple[Any, Any], prompts: tuple[torch.Tensor, torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Our sampler's latent, in the network's own scale, as the official code leaves it."""
    sampling, plan = pack.nodes.host.sampling, pack.nodes.engine.sampling.experts

    def run(solver: str, steps: int, shift: float, guidance: tuple[float, float], boundary: float, acceleration: str = "none",
            seed: int = 1) -> torch.Tensor:
        positive, negative = ([[prompt[None], {}]] for prompt in prompts)
        guider = sampling.guider(*experts, positive, negative, plan.Guidance(*guidance), shift, acceleration, boundary)
        latent = sampling.sample(guider, {"samples": torch.zeros(SHAPE)}, seed, plan.Schedule(solver, steps, shift))["samples"]
        return experts[0].model.process_latent_in(latent)

    return run
