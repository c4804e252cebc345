"""A custom node without nodes: the VAE's decoder only enlarges the latent, so that the endpoint's smallest video takes seconds on a CPU."""

from typing import Any

import torch
from comfy.ldm.wan import vae

NODE_CLASS_MAPPINGS: dict[str, type] = {}


def enlarge(decoder: torch.nn.Module, latent: torch.Tensor, feat_cache: list[Any], feat_idx: object = None, **_: object) -> torch.Tensor:
    """(1, 16, t, h, w) to (1, 3, 4t, 8h, 8w); the first latent frame is one picture."""
    begins, feat_cache[0] = feat_cache[0] is None, latent
    pictures = latent[:, :3].repeat_interleave(4, 2)[:, :, 3 if begins else 0:]
    return pictures.repeat_interleave(8, 3).repeat_interleave(8, 4).tanh()


vae.Decoder3d.forward = enlarge
