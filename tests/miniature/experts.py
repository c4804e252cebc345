"""The two experts: ComfyUI's WanModel, each trained by flow matching on its own side of the boundary."""

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange

from miniature import text
from miniature.latents import Latents
from miniature.recipe import Length, Recipe, device, generator
from miniature.training import averaged, mixed_precision, train

SHIFT, BOUNDARY, TRAIN_TIMESTEPS = 5.0, 0.875, 1000
Weights = dict[str, torch.Tensor]


def new_expert(recipe: Recipe, seed: int = 0) -> torch.nn.Module:
    """WanModel for the short text states, initialised as wan/modules/model.py does."""
    import comfy.ldm.wan.model
    import comfy.ops
    net = comfy.ldm.wan.model.WanModel(model_type="t2v", dim=recipe.dim, ffn_dim=recipe.ffn_dim, num_heads=recipe.dim // 128,
                                       num_layers=recipe.layers, text_dim=text.USED, dtype=torch.float32, operations=comfy.ops.disable_weight_init)
    draw = generator(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(_initial(name, parameter.shape, recipe.dim, draw))
    return net.to(device())


def _initial(name: str, shape: torch.Size, dim: int, draw: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=draw)
    if name.endswith("modulation"):
        return noise / dim**0.5
    if "norm" in name:
        return torch.zeros(shape) if name.endswith("bias") else torch.ones(shape)
    if name.endswith("bias") or name.startswith("head"):
        return torch.zeros(shape)
    if name.startswith(("time", "text_embedding.2")):
        return noise * 0.02
    return noise * (2 / (shape[0] + shape[1:].numel())) ** 0.5


def train_expert(recipe: Recipe, name: str, minutes: float | None = None) -> None:
    """Train "high" or "low" on its own timesteps."""
    net, data, nothing = new_expert(recipe, recipe.seed), Latents(recipe, "plain"), empty_prompt(recipe)
    length: Length = getattr(recipe, name)
    train(net, lambda step: flow_loss(net, data, nothing, recipe, name, length.batch, step), length, recipe.folder() / f"{name}.pt", minutes)


def empty_prompt(recipe: Recipe) -> torch.Tensor:
    """States (1, LONGEST, USED) of no text at all."""
    return text.ShortStates(text.encoder(recipe.seed), device()).of([""]).float().to(device())


def flow_loss(net: torch.nn.Module, data: Latents, nothing: torch.Tensor, recipe: Recipe, name: str, batch: int, step: int) -> torch.Tensor:
    """Mean square error of the velocity, noise - latent, at random noise levels of the expert's range, some prompts left out."""
    draw = generator(recipe.seed, step, 5)
    latents, states = data.batch(batch, draw)
    noise = torch.randn(latents.shape, generator=draw).to(latents)
    sigma = noise_levels(name, batch, draw).to(latents)
    dropped = torch.rand(batch, generator=draw).to(latents) < recipe.prompt_dropout
    states = torch.where(dropped[:, None, None], nothing, states)
    mixed = torch.lerp(latents, noise, sigma[:, None, None, None, None])
    with mixed_precision():
        velocity = predict(net, mixed, sigma, states)
    return (velocity.float() - (noise - latents)).square().mean()


def noise_levels(name: str, count: int, draw: torch.Generator) -> torch.Tensor:
    """Sigmas (count,) spread evenly over the shifted schedule's part above or below the boundary, one in each of `count` equal shares."""
    switch = BOUNDARY / (SHIFT - (SHIFT - 1) * BOUNDARY)
    first, last = (switch, 1.0) if name == "high" else (0.0, switch)
    share = (torch.randperm(count, generator=draw) + torch.rand(count, generator=draw)) / count
    return shifted(first + (last - first) * share)


def shifted(level: torch.Tensor) -> torch.Tensor:
    return SHIFT * level / (1 + (SHIFT - 1) * level)


def predict(net: torch.nn.Module, latents: torch.Tensor, sigma: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Velocity (B, 16, T, H, W), as with the states padded to 512 tokens and 4096 coordinates."""
    padded = torch.nn.functional.pad(states, (0, 0, 0, 1))
    return net(latents, sigma * TRAIN_TIMESTEPS, padded, transformer_options={"optimized_attention_override": padding_as_one(padded.shape[1])})


def padding_as_one(tokens: int) -> Callable[..., torch.Tensor]:
    """Attention with gradients in which the last text token stands for all the padding: Wan attends to it, all with one key and one value."""
    bias = torch.zeros(1, tokens, device=device())
    bias[0, -1] = torch.tensor(text.TOKENS - tokens + 1.0).log()

    def attend(original: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, **others: Any) -> torch.Tensor:
        q, k, v = (rearrange(tensor, "b tokens (heads d) -> b heads tokens d", heads=heads) for tensor in (q, k, v))
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)  # so few tokens: twice as fast as torch's attention in bfloat16 on a CPU
        if k.shape[2] == tokens != q.shape[2]:
            scores = scores + bias.to(scores.dtype)
        return rearrange(scores.softmax(-1).to(v.dtype) @ v, "b heads tokens d -> b tokens (heads d)")

    return attend


def trained_expert(recipe: Recipe, name: str) -> torch.nn.Module:
    net = new_expert(recipe)
    net.load_state_dict(averaged(recipe.folder() / f"{name}.pt"))
    return net


def with_full_text(weights: Weights) -> Weights:
    """The expert for text states of 4096 coordinates, of which those it was not trained with are 0."""
    short = weights["text_embedding.0.weight"]
    return weights | {"text_embedding.0.weight": torch.nn.functional.pad(short, (0, text.WIDTH - short.shape[1]))}
