"""Sizes, lengths and seeds of the miniature, in one place."""

from dataclasses import dataclass
from pathlib import Path

import torch

from comfyui import ROOT
from miniature.scenes import FRAMES, PLAIN, SIZE, Style

FOLDER = ROOT / ".dev" / "miniature"
STYLES = {"plain": PLAIN, "striped": Style(striped=True), "reversed": Style(reversed=True), "framed": Style(framed=True)}
LORAS = {"striped_high": "high", "striped_low": "low", "reversed_high": "high", "reversed_low": "low", "framed_low": "low"}
DISTILLED = {"distilled_high": "high", "distilled_low": "low"}  # LoRAs as well, but of no style
EXPERTS = ("high", "low")


@dataclass(frozen=True)
class Length:
    """How long a part trains; `steps` is what the cosine of its learning rate is stretched over."""

    steps: int
    batch: int
    learning_rate: float
    warmup: int = 100
    average: float = 0.999  # of the exponential moving average of the weights


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out, apart from the code. Expert sizes follow Wan: `dim` is a multiple of 128, the width of a head."""

    name: str
    seed: int = 7
    size: int = SIZE
    frames: int = FRAMES
    vae_dim: int = 12
    dim: int = 256
    ffn_dim: int = 512
    layers: int = 4
    rank: int = 8
    clips: int = 12288
    lora_clips: int = 1536
    wordings: int = 2  # captions of each clip
    prompt_dropout: float = 0.1
    shard: int = 512  # clips whose latents lie in one file
    vae: Length = Length(4703, 24, 3e-3)
    high: Length = Length(11268, 16, 1e-3)
    low: Length = Length(11155, 16, 1e-3)
    lora: Length = Length(600, 16, 2e-3, warmup=20, average=0.99)
    trajectories: int = 1024  # of the distillation
    distilled: Length = Length(1500, 16, 2e-3, warmup=20, average=0.99)

    def folder(self) -> Path:
        return FOLDER / self.name

    def examples_of(self, style: str) -> tuple[int, int]:
        """How many clips of a style are trained on, and the seed that draws them."""
        return (self.clips if style == "plain" else self.lora_clips), self.seed + 1000 * list(STYLES).index(style)


RECIPES = {
    "full": Recipe("full"),
    "micro": Recipe("micro", size=32, vae_dim=4, dim=128, ffn_dim=128, layers=1, rank=2, clips=8, lora_clips=4, shard=4,
                    vae=Length(2, 1, 1e-3), high=Length(2, 2, 1e-3), low=Length(2, 2, 1e-3), lora=Length(2, 2, 1e-3),
                    trajectories=3, distilled=Length(8, 2, 1e-2, warmup=1)),
}


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def generator(*numbers: int) -> torch.Generator:
    """A generator for one place of the training, so that a step's random numbers do not depend on what ran before it."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**62
    return torch.Generator().manual_seed(seed)
