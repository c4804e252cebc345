"""One small sampling problem for all in-process tests of the sampler."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

SHAPE = (1, 16, 3, 4, 6)
TOKENS = 64  # of a prompt; Wan pads to 512, which is most of the work of so small a network
Prompts = tuple[torch.Tensor, torch.Tensor]


def noise(seed: int = 1) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.manual_seed(seed))


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


@contextmanager
def block_runs(*experts: Any) -> Iterator[list[int]]:
    """A list that gets, of each run of an expert's first block, how many prompts it computes at once."""
    prompts: list[int] = []
    hooks = [expert.model.diffusion_model.blocks[0].register_forward_hook(lambda block, args, output: prompts.append(len(output)))
             for expert in experts]
    try:
        yield prompts
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(frozen=True)
class Sample:
    """Our sampler around a pair of experts; prompts are two embeddings (TOKENS, 4096)."""

    pack: ModuleType
    experts: tuple[Any, Any]
    prompts: Prompts

    def __call__(self, solver: str, steps: int, shift: float, guidance: tuple[float, float], boundary: float, acceleration: str = "none",
                 seed: int = 1) -> torch.Tensor:
        """The latent in the network's own scale, as the official code leaves it."""
        return self.in_network_scale(self.latent({"samples": torch.zeros(SHAPE)}, solver, steps, shift, guidance, boundary, acceleration, seed))

    def latent(self, start: dict[str, Any], solver: str, steps: int, shift: float, guidance: tuple[float, float], boundary: float,
               acceleration: str = "none", seed: int = 1, denoise: float = 1.0) -> torch.Tensor:
        """The latent as ComfyUI passes it on."""
        sampling, plan = self.pack.nodes.host.sampling.run, self.pack.nodes.engine.sampling.experts
        guider = sampling.guider(*self.experts, *self.conditioning, plan.Guidance(*guidance), shift, acceleration, boundary)
        return sampling.sample(guider, start, seed, plan.Schedule(solver, steps, shift, denoise))[0]["samples"]

    @property
    def conditioning(self) -> tuple[Any, Any]:
        positive, negative = ([[prompt[None], {}]] for prompt in self.prompts)
        return positive, negative

    def in_network_scale(self, latent: torch.Tensor) -> torch.Tensor:
        return self.experts[0].model.process_latent_in(latent)
