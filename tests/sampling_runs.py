"""One small sampling problem for all in-process tests of the sampler."""

import torch

SHAPE = (1, 16, 3, 4, 6)


def noise(seed: int = 1) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.manual_seed(seed))


def relative_error(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()
