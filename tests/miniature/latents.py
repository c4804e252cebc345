"""What the experts and the LoRAs train on: latents of clips and text states of their captions, made once and kept in shards."""

import random
from pathlib import Path
from typing import Any

import torch
from einops import rearrange

from miniature import text, vae
from miniature.recipe import STYLES, Recipe, device
from miniature.scenes import caption, clips, examples
from miniature.training import mixed_precision


def shards(recipe: Recipe, style: str) -> list[Path]:
    count, _ = recipe.examples_of(style)
    return [recipe.folder() / "latents" / f"{style}_{first:06d}.pt" for first in range(0, count, recipe.shard)]


def write_shards(recipe: Recipe, part: int = 0, parts: int = 1) -> None:
    """Write the shards that are not there yet; `part` of `parts` processes does every parts-th."""
    wanted = [(style, index, path) for style in STYLES for index, path in enumerate(shards(recipe, style))]
    missing = [entry for entry in wanted[part::parts] if not entry[2].exists()]
    if not missing:
        return
    net = vae.loaded(torch.load(vae.finished(recipe), weights_only=True), recipe.vae_dim)
    encoder = text.ShortStates(text.encoder(recipe.seed), device())
    for style, index, path in missing:
        path.parent.mkdir(exist_ok=True)
        unfinished = path.with_suffix(".part")
        torch.save(shard(recipe, style, index, net, encoder), unfinished)
        unfinished.replace(path)
        print(f"latents: {path.stem}", flush=True)


@torch.no_grad()
def shard(recipe: Recipe, style: str, index: int, net: Any, encoder: text.ShortStates, at_once: int = 8) -> dict[str, torch.Tensor]:
    """latents (N, 16, T, H/8, W/8) as the experts see them, and text states (N, wordings, LONGEST, USED), both float16."""
    import comfy.latent_formats
    wan = comfy.latent_formats.Wan21()
    count, seed = recipe.examples_of(style)
    first = index * recipe.shard
    chosen = examples(count, seed)[first : first + recipe.shard]
    encoded = []
    for begin in range(0, len(chosen), at_once):
        scenes = [example.scene for example in chosen[begin : begin + at_once]]
        with mixed_precision():
            encoded.append(net.encode(vae.pictures_of(clips(scenes, seed * 1_000_003 + first + begin, recipe.size, recipe.frames, STYLES[style]))))
    chance = random.Random(seed * 1_000_003 + first)
    captions = [caption(example.scene, chance) for example in chosen for _ in range(recipe.wordings)]
    return {"latents": wan.process_in(torch.cat(encoded).float().cpu()).half(),
            "states": rearrange(encoder.of(captions), "(n wordings) tokens d -> n wordings tokens d", wordings=recipe.wordings)}


class Latents:
    """All shards of a style."""

    def __init__(self, recipe: Recipe, style: str) -> None:
        loaded = [torch.load(path, weights_only=True) for path in shards(recipe, style)]
        self.latents = torch.cat([entry["latents"] for entry in loaded])
        self.states = torch.cat([entry["states"] for entry in loaded])

    def batch(self, size: int, draw: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (B, 16, T, H/8, W/8) and states (B, LONGEST, USED) of random clips in random wordings, float32 on the device."""
        chosen = torch.randint(len(self.latents), (size,), generator=draw)
        wording = torch.randint(self.states.shape[1], (size,), generator=draw)
        return self.latents[chosen].float().to(device()), self.states[chosen, wording].float().to(device())
