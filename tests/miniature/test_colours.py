"""A turn of the latent's channels changes no clip, and the fit finds the one with which ComfyUI's colour factors show the colours.

That they show the shipped miniature's: test_semantics.py.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from miniature import colours, distilled, experts, recipe, text, vae
from miniature.recipe import EXPERTS, RECIPES

MICRO = RECIPES["micro"]


@pytest.fixture
def turn(pack: ModuleType, float64: None) -> torch.Tensor:
    """Any."""
    return colours.nearest_turn(drawn(1, 16, 16))


def drawn(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=recipe.generator(seed))


def randomised(net: Any, *names: str) -> Any:
    """The network, whose parameters that begin at 0 are other than 0."""
    for name in names:
        torch.nn.init.normal_(net.get_parameter(name), std=0.05, generator=recipe.generator(3))
    return net.eval().requires_grad_(False)


def clips_of(nets: Mapping[str, torch.nn.Module], autoencoder: Any, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and pictures of a whole run over both experts, with guidance."""
    states = drawn(2, len(noise), text.LONGEST, text.USED)
    latent = distilled.trajectories(dict(nets), noise, states, torch.zeros_like(states[:1]))[:, -1]
    return latent, autoencoder.decode(colours.wan().process_out(latent))


def test_of_turned_noise_the_turned_networks_make_the_same_clip(turn: torch.Tensor):
    nets = {name: randomised(experts.new_expert(MICRO, seed), "head.head.weight", "head.head.bias") for seed, name in enumerate(EXPERTS)}
    autoencoder = randomised(vae.new_vae(MICRO.vae_dim), "conv1.bias", "conv2.bias")
    noise = drawn(4, 2, 16, 2, 4, 4)
    latent, clip = clips_of(nets, autoencoder, noise)
    encoded = colours.wan().process_in(autoencoder.encode(clip))
    for net in nets.values():
        net.load_state_dict(colours.turned_expert(net.state_dict(), turn))
    autoencoder.load_state_dict(colours.turned_vae(autoencoder.state_dict(), turn))
    turned_latent, same_clip = clips_of(nets, autoencoder, colours.turned(noise, turn))
    assert (latent - noise).norm() > 0.1 * noise.norm()
    assert_close(turned_latent, colours.turned(latent, turn))
    assert_close(same_clip, clip)
    assert_close(colours.wan().process_in(autoencoder.encode(clip)), colours.turned(encoded, turn))


def test_the_fit_finds_the_turn_with_which_the_factors_show_the_colours(turn: torch.Tensor):
    factors, latents = torch.tensor(colours.wan().latent_rgb_factors).T, drawn(5, 4, 16, 2, 4, 4)
    linear = torch.einsum("cj,nj...->n...c", factors, colours.turned(latents, turn)) + torch.tensor(colours.wan().latent_rgb_factors_bias)
    fitted = colours.fitted(latents, linear / 2 + 0.5)
    assert_close(fitted @ fitted.T, torch.eye(16))
    assert_close(factors @ fitted, factors @ turn, atol=1e-6, rtol=0)
