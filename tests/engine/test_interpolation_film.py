"""FILM has the published layers and file, treats both frames alike, and learns to move pictures half-way."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save

import interpolation_oracles as oracles
from engine.interpolation.checkpoints import detect
from engine.interpolation.film import Film, FilmShape
from engine.interpolation.film_files import doubling, from_published, published_names, shape_of

pytestmark = pytest.mark.usefixtures("float64")
PUBLISHED_FP16_BYTES = 68_882_302  # film_net_fp16.safetensors
TOLERANCE = 1e-9  # of a brightness in 0..1
SMALL, SMALL_WIDTHS = 8, (4, 8, 16, 32)


def small_film(filters: int = SMALL, widths: tuple[int, ...] = SMALL_WIDTHS) -> Film:
    named = published_names(oracles.film_weights(filters, widths))
    shape = shape_of(named)
    network = Film(shape, torch.nn)
    network.load_state_dict(from_published(named, shape))
    return network.eval()


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


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tiny layers only lose time to threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def untrained(filters: int, widths: tuple[int, ...]) -> Film:
    """A small network that starts as the mean of both warped frames, with little flow: training has to find the flow."""
    network: Any = small_film(filters=filters, widths=widths)
    finest = network.fuse[0]
    for layer in (finest.mix, finest.last, network.output):
        layer.weight.zero_()
        layer.bias.zero_()
    for colour in range(3):
        finest.mix.weight[colour, (colour, 3 + filters + colour), 1, 1] = 0.5
        finest.last.weight[colour, colour, 1, 1] = network.output.weight[colour, colour, 0, 0] = 1
    for predictor in network.predict:
        predictor.flow.weight.mul_(0.1)
    return network


def moving(generator: torch.Generator, side: int = 64, step: int = 4) -> tuple[torch.Tensor, ...]:
    """A random smooth picture before, half-way through and after a move of 8 pixels to the left or to the right."""
    coarse = torch.rand(1, 3, side // 8 + 4, side // 8 + 4, generator=generator)
    wide = F.interpolate(coarse, side + 2 * step, mode="bicubic").clamp(0, 1)[:, :, step:-step]
    direction = 1 if torch.rand((), generator=generator) < 0.5 else -1
    return tuple(wide[..., step + when * direction * step :][..., :side] for when in (-1, 0, 1))


def middle_of(network: Film, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return network.between(network.pair(network.features(first), network.features(second)), torch.tensor([0.5])).frames


def error(picture: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (picture - expected).abs().mean()


def test_trained_a_little_it_moves_pictures_half_way_and_leaves_equal_pictures_alone(one_thread: None) -> None:
    network = untrained(4, (4, 8, 16, 16))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(180):
        first, half_way, second = moving(generator)
        optimizer.zero_grad()
        error(middle_of(network, first, second), half_way).backward()
        optimizer.step()
    with torch.no_grad():
        clips = [moving(generator) for _ in range(6)]
        made = sum(error(middle_of(network, first, second), half_way) for first, half_way, second in clips)
        blended = sum(error((first + second) / 2, half_way) for first, half_way, second in clips)
        unmoved = sum(error(middle_of(network, first, first), first) for first, _, _ in clips)
    assert made < blended / 2
    assert unmoved < blended * 0.75
