"""Stage: each network on the card, in each type, against itself in float64 on the processor."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

import interpolation_oracles as oracles
import precision
import tiny_weights
from comfyui import import_comfyui
from gpu import card
from gpu.task import Row, task_of_this_process
from sampling_runs import relative_error

LIMITS = {torch.float32: 5e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # in float32, PyTorch lets convolutions multiply in TF32
Inputs = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Part:
    """A network, inputs in float64, and how it is called."""

    name: str
    network: Any
    inputs: Inputs
    call: Callable[..., torch.Tensor]

    def exact(self) -> torch.Tensor:
        with precision.float64(), torch.no_grad():
            return self.call(copy.deepcopy(self.network).double(), *self.inputs)

    def on_card(self, dtype: torch.dtype) -> torch.Tensor:
        with torch.no_grad():
            network = copy.deepcopy(self.network).to(card.device(), dtype)
            return self.call(network, *(arguments.to(card.device(), dtype) for arguments in self.inputs)).double().cpu()


def parts() -> list[Part]:
    pictures = tuple(picture.double() for picture in oracles.pictures(128, 192))
    return [expert(), vae(), interpolator("RIFE", pictures), interpolator("FILM", pictures)]


def expert() -> Part:
    import comfy.ldm.wan.model
    import comfy.ops
    network = comfy.ldm.wan.model.WanModel(model_type="t2v", dim=512, ffn_dim=2048, num_heads=4, num_layers=8, operations=comfy.ops.manual_cast)
    network.load_state_dict(tiny_weights.expert(seed=1, dim=512, ffn=2048, layers=8), strict=False)
    generator = torch.Generator().manual_seed(1)
    latent, text = torch.randn(1, 16, 3, 16, 16, generator=generator), torch.randn(1, 512, 4096, generator=generator)
    return Part("expert", network.eval(), (latent.double(), torch.tensor([500.0]).double(), text.double()), lambda net, *arguments: net(*arguments))


def vae() -> Part:
    import comfy.ldm.wan.vae
    network = comfy.ldm.wan.vae.WanVAE(dim=32, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
                                       temperal_downsample=[False, True, True], dropout=0.0)
    network.load_state_dict(tiny_weights.vae(seed=4, dim=32))
    latent = torch.randn(1, 16, 3, 8, 12, generator=torch.Generator().manual_seed(1))
    return Part("VAE", network.eval(), (latent.double(),), lambda net, z: net.decode(z))


def interpolator(family: str, pictures: Inputs) -> Part:
    from engine.interpolation.checkpoints import detect
    from gpu.video import random_weights

    def call(network: Any, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        pair = network.pair(network.features(first), network.features(second))
        return network.between(pair, torch.tensor([0.5], device=first.device)).frames

    return Part(family, detect(random_weights(family)).network(torch.nn), pictures, call)


def compared(part: Part, exact: torch.Tensor, dtype: torch.dtype) -> Row:
    error = relative_error(part.on_card(dtype), exact)
    return {"relative_error": error, "limit": LIMITS[dtype], "within": error < LIMITS[dtype]}


def main() -> None:
    task = task_of_this_process()
    import_comfyui(cpu=not torch.cuda.is_available())
    for part in [expert()] if task.rehearsal else parts():  # a processor takes minutes for the others' halves
        exact = part.exact()
        for dtype in LIMITS:
            task.attempt(f"{part.name} in {str(dtype).removeprefix('torch.')}", partial(compared, part, exact, dtype))


if __name__ == "__main__":
    main()
