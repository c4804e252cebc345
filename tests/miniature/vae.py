"""A small Wan 2.1 VAE: ComfyUI's own class, trained on crops and whole clips, exported so that Wan's fixed means and deviations fit it."""

from pathlib import Path
from typing import Any

import torch
from einops import rearrange

from miniature.recipe import STYLES, Recipe, device, generator
from miniature.scenes import Style, clips, random_scenes, styled
from miniature.training import averaged, mixed_precision, train

CHANNELS = 16
BATCH = 24
CYCLE = ((24, 1, 32), (6, 5, 32), (24, 1, 32), (2, 17, 32), (24, 1, 32), (6, 5, 32), (24, 1, 32), (1, 17, 64))
"""Cuts of a step, their frames and their size, in turn. Half of the steps see single pictures, which teach the most per second."""
LATENT_NOISE = 0.15  # of the latent's deviation: what the decoder must not care about
MOMENT_WEIGHT = 0.05
Weights = dict[str, torch.Tensor]


def new_vae(dim: int, seed: int = 0) -> Any:
    """WanVAE as the loader builds it, as a network that treats each picture alone and repeats it in time, so that pictures teach clips as well."""
    import comfy.ldm.wan.vae
    net = comfy.ldm.wan.vae.WanVAE(dim=dim, z_dim=CHANNELS, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
                                   temperal_downsample=[False, True, True], dropout=0.0)
    draw = generator(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if not name.endswith("gamma"):
                parameter.copy_(_initial(name, parameter.shape, draw))
    return fast(net).to(device())


def _initial(name: str, shape: torch.Size, draw: torch.Generator) -> torch.Tensor:
    """Weights that keep the variance, and do not look back in time; residual branches begin at 0."""
    if name.endswith(("residual.6.weight", "proj.weight", "bias")):
        return torch.zeros(shape)
    if name.endswith("time_conv.weight"):
        now = torch.eye(shape[1]).repeat(shape[0] // shape[1], 1)[:, :, None, None, None]
    else:
        now = torch.randn((*shape[:2], *(1,) * (len(shape) - 4), *shape[-2:]), generator=draw) * (1.5 / (shape[1:2] + shape[-2:]).numel()) ** 0.5
    return torch.nn.functional.pad(now, (0, 0, 0, 0, shape[2] - 1, 0)) if len(shape) == 5 else now


def fast(net: torch.nn.Module) -> torch.nn.Module:
    """Channels last: a third faster on CPUs."""
    for module in net.modules():
        to: Any = module.to  # its types lack memory_format
        if isinstance(module, torch.nn.Conv3d):
            to(memory_format=torch.channels_last_3d)
        elif isinstance(module, torch.nn.Conv2d):
            to(memory_format=torch.channels_last)
    return net


def train_vae(recipe: Recipe, minutes: float | None = None) -> None:
    net = new_vae(recipe.vae_dim, recipe.seed)
    train(net, lambda step: reconstruction_loss(net, recipe, step), recipe.vae, recipe.folder() / "vae.pt", minutes)


def reconstruction_loss(net: Any, recipe: Recipe, step: int) -> torch.Tensor:
    """Error of the pictures, decoded from a noisy latent, and of the latent's moments."""
    pictures = training_pictures(recipe, step).to(device())
    with mixed_precision():
        latent = net.encode(pictures).float()
        noise = torch.randn(latent.shape, generator=generator(recipe.seed, step, 3)).to(latent)
        decoded = net.decode(latent + LATENT_NOISE * noise).float()
    error = decoded - pictures
    loss = error.abs().mean() + error.square().mean()
    if len(latent) == 1:  # the moments of one clip say nothing about those of all
        return loss
    mean, variance = latent.mean(dim=(0, 2, 3, 4)), latent.var(dim=(0, 2, 3, 4))
    return loss + MOMENT_WEIGHT * (mean.square() + (variance - 1).square()).mean()


def training_pictures(recipe: Recipe, step: int) -> torch.Tensor:
    """(B, 3, T, H, W) in -1..1: cuts of clips, by turns many single pictures, short cuts, long cuts and a whole clip."""
    count, frames, size = CYCLE[step % len(CYCLE)]
    draw = generator(recipe.seed, step)
    scenes = random_scenes(max(1, count * recipe.vae.batch // BATCH), recipe.seed * 7_919 + step)
    drawn = clips(scenes, recipe.seed * 104_729 + step, recipe.size, 3 if frames == 1 else recipe.frames)
    cuts = [_cut(styled(clip, style), frames, min(size, recipe.size), draw) for clip, style in zip(drawn, _styles(len(scenes), draw), strict=True)]
    return rearrange(cuts, "n t h w c -> n c t h w") * 2 - 1


def _styles(count: int, draw: torch.Generator) -> list[Style]:
    every = list(STYLES.values())
    return [every[index] for index in torch.randint(len(every), (count,), generator=draw)]


def _cut(clip: torch.Tensor, length: int, size: int, draw: torch.Generator) -> torch.Tensor:
    frames, height, width = clip.shape[:3]
    time, top, left = (int(torch.randint(room + 1, (1,), generator=draw)) for room in (frames - length, height - size, width - size))
    return clip[time : time + length, top : top + size, left : left + size]


@torch.no_grad()
def conforming(recipe: Recipe, weights: Weights, count: int = 128) -> Weights:
    """Weights of the same VAE whose latents have Wan 2.1's means and deviations: folded into the two 1x1x1 convolutions around the latent."""
    import comfy.latent_formats
    net = loaded(weights, recipe.vae_dim)
    scenes = random_scenes(count, recipe.seed * 31)
    latents = torch.cat([net.encode(pictures_of(clips(scenes[first : first + 16], first, recipe.size, recipe.frames)))
                         for first in range(0, count, 16)]).float()
    mean, deviation = latents.mean(dim=(0, 2, 3, 4)).cpu(), latents.std(dim=(0, 2, 3, 4)).cpu()
    wan = comfy.latent_formats.Wan21()
    return folded(weights, mean, deviation, wan.latents_mean.flatten(), wan.latents_std.flatten())


def folded(weights: Weights, mean: torch.Tensor, deviation: torch.Tensor, new_mean: torch.Tensor, new_deviation: torch.Tensor) -> Weights:
    """Move the latent's channels from one mean and deviation (16,) to another, with no change of the pictures."""
    made = dict(weights)
    scale = new_deviation / deviation
    out_weight, out_bias = weights["conv1.weight"].clone(), weights["conv1.bias"].clone()
    out_weight[:CHANNELS] *= scale[:, None, None, None, None]
    out_bias[:CHANNELS] = (out_bias[:CHANNELS] - mean) * scale + new_mean
    back = weights["conv2.weight"] / scale[None, :, None, None, None]
    made |= {"conv1.weight": out_weight, "conv1.bias": out_bias, "conv2.weight": back}
    made["conv2.bias"] = weights["conv2.bias"] + weights["conv2.weight"].flatten(1) @ (mean - new_mean / scale)
    return made


def loaded(weights: Weights, dim: int) -> Any:
    net = new_vae(dim)
    net.load_state_dict(weights)
    return net.eval().requires_grad_(False)


def pictures_of(clip: torch.Tensor) -> torch.Tensor:
    """Clips (N, T, H, W, 3) in 0..1 as the VAE takes them: (N, 3, T, H, W) in -1..1."""
    return rearrange(clip, "n t h w c -> n c t h w").to(device()) * 2 - 1


def finished(recipe: Recipe) -> Path:
    return recipe.folder() / "vae_conforming.pt"


def finish_vae(recipe: Recipe) -> None:
    torch.save(conforming(recipe, averaged(recipe.folder() / "vae.pt")), finished(recipe))
