"""LoRAs on the trained experts: low-rank changes of the blocks' matrices, in the key layout most Wan trainers write."""

from typing import Any

import torch
from torch.nn.utils import parametrize

from miniature.experts import empty_prompt, flow_loss, trained_expert
from miniature.latents import Latents
from miniature.recipe import LORAS, Recipe, device, generator
from miniature.training import averaged, train

Weights = dict[str, torch.Tensor]


class LowRank(torch.nn.Module):
    """W + B A; B begins at 0."""

    def __init__(self, weight: torch.Tensor, rank: int, draw: torch.Generator) -> None:
        super().__init__()
        self.up = torch.nn.Parameter(torch.zeros(weight.shape[0], rank, device=device()))
        self.down = torch.nn.Parameter((torch.randn(rank, weight.shape[1], generator=draw) / weight.shape[1] ** 0.5).to(device()))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + self.up @ self.down


def attach(net: Any, rank: int, seed: int) -> torch.nn.Module:
    """Freeze the network and give each matrix of its blocks a low-rank change."""
    net.requires_grad_(False)
    draw = generator(seed)
    for module in net.blocks.modules():
        if isinstance(module, torch.nn.Linear):
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank, draw), unsafe=True)
    return net


def train_lora(recipe: Recipe, name: str, minutes: float | None = None) -> None:
    """Train one of LORAS: style_expert."""
    expert = LORAS[name]
    net = attach(trained_expert(recipe, expert), recipe.rank, recipe.seed)
    data, nothing = Latents(recipe, name.rsplit("_", 1)[0]), empty_prompt(recipe)
    train(net, lambda step: flow_loss(net, data, nothing, recipe, expert, recipe.lora.batch, step), recipe.lora,
          recipe.folder() / f"lora_{name}.pt", minutes)


def lora_file(recipe: Recipe, name: str) -> Weights:
    """Tensors `diffusion_model.blocks.0.self_attn.q.lora_A.weight` and so on; scale 1 is what was trained."""
    made = {}
    for key, tensor in averaged(recipe.folder() / f"lora_{name}.pt").items():
        module, _, role = key.partition(".parametrizations.weight.0.")
        made[f"diffusion_model.{module}.lora_{'B' if role == 'up' else 'A'}.weight"] = tensor
    return made
