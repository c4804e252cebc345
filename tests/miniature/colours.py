"""An orthogonal turn of the latent's channels with which ComfyUI's colour factors of Wan 2.1 show the miniature's colours in its previews.

Noise stays noise, and VAE and experts absorb the turn exactly: of turned noise they make the same clip. What no turn moves is the mean: that of the
channels is 0, so that of all previews is the factors' bias, which is lighter and greener than the clips.
"""

from typing import Any

import torch
from einops import rearrange, reduce

from miniature import vae
from miniature.recipe import Recipe
from miniature.scenes import clips, random_scenes

CLIPS, AT_ONCE = 64, 16  # that the fit sees
STEPS = 3000
SEEN = 0.3  # how far from the background a shape's pixels are, in colours of 0..1
Weights = dict[str, torch.Tensor]


def wan() -> Any:
    """ComfyUI's latent format: means and deviations of the channels, and colour factors."""
    import comfy.latent_formats
    return comfy.latent_formats.Wan21()


def turn(recipe: Recipe, weights: Weights) -> torch.Tensor:
    """The turn (16, 16) for the VAE of these weights."""
    net, scenes = vae.loaded(weights, recipe.vae_dim), random_scenes(min(CLIPS, recipe.clips), recipe.seed * 31)
    drawn = [clips(scenes[first : first + AT_ONCE], first, recipe.size, recipe.frames) for first in range(0, len(scenes), AT_ONCE)]
    with torch.no_grad():
        encoded = torch.cat([net.encode(vae.pictures_of(clip)).float().cpu() for clip in drawn])
    return fitted(wan().process_in(encoded), small(torch.cat(drawn)))


def turned(latents: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Latents (N, 16, T, H, W), as the experts see them, with turned channels."""
    return torch.einsum("ij,nj...->ni...", turn.to(latents), latents)


def small(clip: torch.Tensor) -> torch.Tensor:
    """What each number of a latent stands for: clips (N, 4T - 3, 8H, 8W, 3) as (N, T, H, W, 3)."""
    later = reduce(clip[:, 1:], "n (t four) h w c -> n t h w c", "mean", four=4)
    return reduce(torch.cat([clip[:, :1], later], dim=1), "n t (h a) (w b) c -> n t h w c", "mean", a=8, b=8)


# --- the fit ----------------------------------------------------------------------------------------------------------------------


def fitted(latents: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """The turn (16, 16), float64, of latents (N, 16, T, H, W), as the experts see them, whose previews are nearest to colours (N, T, H, W, 3).

    Least squares, in which all shapes together count as much as all backgrounds, by majorisation: each step solves the Procrustes problem of a
    bound of the squares, so none leads up. The first is that of the best linear colours; the channels that no colour needs stay nearly as they are.
    """
    factors, bias = (torch.tensor(part, dtype=torch.float64) for part in (wan().latent_rgb_factors, wan().latent_rgb_factors_bias))
    channels = rearrange(latents, "n c t h w -> (n t h w) c").double()
    wanted = rearrange(colours, "n t h w c -> (n t h w) c").double() * 2 - 1 - bias
    weighted = channels * weights_of(colours)
    moments, shown = channels.T @ weighted, wanted.T @ weighted
    bound = torch.linalg.matrix_norm(moments, 2) * torch.linalg.matrix_norm(factors, 2) ** 2
    found = nearest_turn(factors @ shown @ torch.linalg.inv(moments) + 1e-3 * torch.eye(vae.CHANNELS))
    for _ in range(STEPS):
        found = nearest_turn(found - factors @ (factors.T @ found @ moments - shown) / bound)
    return found


def nearest_turn(matrix: torch.Tensor) -> torch.Tensor:
    left, _, right = torch.linalg.svd(matrix)
    return left @ right


def weights_of(colours: torch.Tensor) -> torch.Tensor:
    """A weight for each pixel (N T H W, 1) of clips (N, T, H, W, 3): 1/2 for all shapes together, 1/2 for all backgrounds."""
    pixels = colours.double().flatten(1, 3)
    shape = ((pixels - pixels.median(dim=1, keepdim=True).values).norm(dim=-1) > SEEN).reshape(-1, 1)
    return torch.where(shape, 0.5 / shape.sum(), 0.5 / (~shape).sum())


# --- what absorbs the turn --------------------------------------------------------------------------------------------------------


def turned_vae(weights: Weights, turn: torch.Tensor) -> Weights:
    """The VAE whose latents, normalised by Wan's means and deviations, are turned, and whose pictures are the same."""
    mean, deviation = (part.flatten().double() for part in (wan().latents_mean, wan().latents_std))
    there, back = (deviation[:, None] * matrix / deviation for matrix in (turn, turn.T))
    into, offset, out, colour = (weights[name].double() for name in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"))
    latent, spread = into.split(vae.CHANNELS)
    made = {"conv1.weight": torch.cat([torch.einsum("ij,j...->i...", there, latent), spread]),
            "conv1.bias": torch.cat([there @ (offset[: vae.CHANNELS] - mean) + mean, offset[vae.CHANNELS :]]),
            "conv2.weight": torch.einsum("oi...,ij->oj...", out, back),
            "conv2.bias": colour + out.flatten(1) @ (mean - back @ mean)}
    return weights | {name: tensor.to(weights[name]) for name, tensor in made.items()}


def turned_expert(weights: Weights, turn: torch.Tensor) -> Weights:
    """The expert that takes turned latents and gives turned velocities."""
    made = {"patch_embedding.weight": torch.einsum("oi...,ji->oj...", weights["patch_embedding.weight"].double(), turn)}
    for name in ("head.head.weight", "head.head.bias"):
        pixels = weights[name].double().unflatten(0, (-1, vae.CHANNELS))  # of a patch
        made[name] = torch.einsum("ij,pj...->pi...", turn, pixels).flatten(0, 1)
    return weights | {name: tensor.to(weights[name]) for name, tensor in made.items()}
