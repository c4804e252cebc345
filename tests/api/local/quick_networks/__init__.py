"""A custom node without nodes, so that the endpoint's smallest video takes a second on a CPU: the VAE's decoder only enlarges the latent, and in the
experts each token of the video attends to few of the others, and to the first words of a text; RIFE mixes frames without looking for motion."""

import functools
import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from comfy.ldm.wan import model, vae

NODE_CLASS_MAPPINGS: dict[str, type] = {}
STRIDE = 128  # of the tokens of a video that are attended to
WORDS = 64  # of the tokens of a text


def enlarge(decoder: torch.nn.Module, latent: torch.Tensor, feat_cache: list[Any], feat_idx: object = None, **_: object) -> torch.Tensor:
    """(1, 16, t, h, w) to (1, 3, 4t, 8h, 8w); the first latent frame is one picture."""
    make_rife_quick()
    begins, feat_cache[0] = feat_cache[0] is None, latent
    pictures = latent[:, :3].repeat_interleave(4, 2)[:, :, 3 if begins else 0:]
    return pictures.repeat_interleave(8, 3).repeat_interleave(8, 4).tanh()


@functools.cache
def make_rife_quick() -> None:
    """Once all packs are there, in whatever order."""
    pack = next(name for name in sys.modules if name.endswith("a_folder_of_another_name"))
    rife = importlib.import_module(f"{pack}.nodes.engine.interpolation.rife")

    def mix(network: torch.nn.Module, pair: Any, timesteps: torch.Tensor) -> Any:
        first, second = (source[:, :3].repeat(len(timesteps), 1, 1, 1) for source in (pair.first, pair.second))
        return rife.Warped(torch.lerp(first, second, timesteps.view(-1, 1, 1, 1)), first, second)

    rife.Rife.features = lambda network, frame: frame.clamp(0, 1).float()
    rife.Rife.between = mix


def sparse(attention: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        some = slice(None, None, STRIDE) if k.shape[1] == q.shape[1] else slice(WORDS)
        return attention(q, k[:, some], v[:, some], *args, **options)

    return attend


vae.Decoder3d.forward = enlarge
model.optimized_attention = sparse(model.optimized_attention)
