"""FILM has the published layers and file, and treats both frames alike. That it learns to move pictures: python dev.py bench film_training."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save

import interpolation_oracles as oracles
from bench_film_training import SMALL, SMALL_WIDTHS, small_film
from engine.interpolation.checkpoints import detect
from engine.interpolation.film import Film, FilmShape
from engine.interpolation.film_files import doubling, published_names

pytestmark = pytest.mark.usefixtures("float64")
PUBLISHED_FP16_BYTES = 68_882_302  # film_net_fp16.safetensors
TOLERANCE = 1e-9  # of a brightness in 0..1


def to_published(network: Film) -> dict[str, torch.Tensor]:
    """Our state dict under the published names: halves of layers joined, doubling kernels taken apart."""
    ours = network.state_dict()
    published: dict[str, torch.Tensor] = {}
    for kind in ("weight", "bias"):
        for level in range(4):
            for index in range(2):
                published[f"extract.extract_sublevels.convs.{level}.{index}.conv.{kind}"] = ours[f"extract.levels.{level}.{2 * index}.{kind}"]
            predictor = f"_predictors.{2 - level}" if level < 3 else "_predictor"
            for index, layer in enumerate(("own", "hidden.0", "hidden.1", "hidden.2", "flow")):
                tensor = ours[f"predict.{level}.{layer}.{kind}"]
                if (layer, kind) == ("own", "weight"):
                    tensor = torch.cat((tensor, ours[f"predict.{level}.other.weight"]), 1)
                published[f"predict_flow.{predictor}._convs.{index}.conv.{kind}"] = tensor
            for index, layer in enumerate(("up", "mix", "last")):
                tensor = ours[f"fuse.{level}.{layer}.{kind}"]
                corners = tensor[:, :, ::2, ::2].flip(2, 3).transpose(0, 1) if (layer, kind) == ("up", "weight") else tensor
                published[f"fuse.convs.{3 - level}.{index}.conv.{kind}"] = corners
        published[f"fuse.output_conv.{kind}"] = ours[f"output.{kind}"]
    return {name: tensor.contiguous() for name, tensor in published.items()}


def test_the_published_weights_fit_and_come_back_unchanged_as_a_file_of_the_published_size() -> None:
    weights = {name: tensor.half() for name, tensor in oracles.film_weights().items()}
    assert len(weights) == 82
    assert sum(tensor.numel() for tensor in weights.values()) == 34_436_667
    network = detect(weights).network(torch.nn)
    assert isinstance(network, Film)
    back = to_published(network)
    assert len(save(back)) == PUBLISHED_FP16_BYTES
    assert back.keys() == weights.keys()
    for name, tensor in weights.items():
        torch.testing.assert_close(back[name], tensor, rtol=0, atol=0)


def test_both_styles_of_naming_are_film() -> None:
    core = oracles.film_weights()
    torchscript = {name.replace(".conv.", ".0."): tensor for name, tensor in core.items()}
    assert detect(core) == detect(torchscript)
    assert detect(core).name == "FILM film_net"
    assert detect(core).shape == FilmShape(64, (32, 64, 128, 256))
    for tensor, other in zip(detect(core).network(torch.nn).parameters(), detect(torchscript).network(torch.nn).parameters(), strict=True):
        assert torch.equal(tensor, other)


def test_doubling_and_convolution_are_one_kernel() -> None:
    image, kernel = torch.rand(2, 5, 6, 8), torch.rand(7, 5, 2, 2)
    apart = F.conv2d(F.pad(F.interpolate(image, scale_factor=2, mode="nearest"), (0, 1, 0, 1)), kernel)
    torch.testing.assert_close(F.conv_transpose2d(image, doubling(kernel), stride=2, padding=1, output_padding=1), apart)


def test_one_flow_layer_in_halves_equals_the_whole() -> None:
    weights = published_names(oracles.film_weights(SMALL, SMALL_WIDTHS))
    network = small_film()
    here, there = torch.rand(2, 1, 120, 4, 4)
    x = torch.cat((here, there), 1)
    for index, padding in enumerate((1, 1, 1, 0, 0)):
        layer = f"predict_flow._predictor._convs.{index}"
        x = F.conv2d(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"], padding=padding)
        x = F.leaky_relu(x, 0.2) if index < 4 else x
    predictor = network._predictor(5)
    with torch.no_grad():
        torch.testing.assert_close(predictor(predictor.own(here), there), x)


@torch.no_grad()
def test_swapped_frames_give_swapped_flow_and_swapped_warped_frames_at_the_mirrored_moment() -> None:
    network = small_film()
    first, second = (network.features(picture) for picture in oracles.pictures(64, 128))
    forward, backward = network.pair(first, second), network.pair(second, first)
    for ours, mirrored in zip(forward.to_first + forward.to_second, backward.to_second + backward.to_first, strict=True):
        torch.testing.assert_close(ours, mirrored)
    early, late = network.between(forward, torch.tensor([0.2])), network.between(backward, torch.tensor([0.8]))
    torch.testing.assert_close((early.first, early.second), (late.second, late.first))


@torch.no_grad()
def test_without_flow_the_warped_frames_are_the_frames() -> None:
    network = small_film()
    predictor: Any
    for predictor in network.predict:
        predictor.flow.weight.zero_()
        predictor.flow.bias.zero_()
    first, second = oracles.pictures(64, 64)
    new = network.between(network.pair(network.features(first), network.features(second)), torch.tensor([0.3]))
    torch.testing.assert_close((new.first, new.second), (first, second), rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_moments_computed_together_equal_moments_computed_one_by_one() -> None:
    network = small_film()
    pair = network.pair(*(network.features(picture) for picture in oracles.pictures(64, 128)))
    together = network.between(pair, torch.tensor([0.25, 0.75])).frames
    alone = torch.cat([network.between(pair, torch.tensor([t])).frames for t in (0.25, 0.75)])
    torch.testing.assert_close(together, alone, rtol=0, atol=TOLERANCE)
