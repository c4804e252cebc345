"""RIFE computes what its authors' code computes, for every published version and for real weights."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

import interpolation_oracles as oracles
import precision
from engine.interpolation.archives import read
from engine.interpolation.checkpoints import detect
from engine.interpolation.rife import Estimate, Pair, Rife, RifeShape, middles, resize, shrink
from engine.interpolation.rife_files import VERSIONS

TOLERANCE = 1e-9  # of a brightness in 0..1, in float64
NAMES = {
    "4.0 or 4.1": ("4.0", "4.1"), "4.2 to 4.4": ("4.2", "4.3", "4.4"), "4.5": ("4.5",), "4.6": ("4.6",), "4.7 to 4.9": ("4.7", "4.8", "4.9"),
    "4.10 to 4.19 or 4.24": ("4.10", "4.11", "4.12", "4.13", "4.14", "4.15", "4.17", "4.18", "4.19", "4.24"),
    "4.12 lite or 4.13 lite": ("4.12.lite", "4.13.lite"), "4.14 lite": ("4.14.lite",),
    "4.15 lite to 4.17 lite": ("4.15.lite", "4.16.lite", "4.17.lite"), "4.20": ("4.20",), "4.21 to 4.23": ("4.21", "4.22", "4.23"),
    "4.22 lite": ("4.22.lite",), "4.25 or 4.26": ("4.25", "4.26"), "4.25 lite": ("4.25.lite",), "4.25 heavy": ("4.25.heavy",),
    "4.26 heavy": ("4.26.heavy",),
}


def built(weights: Mapping[str, torch.Tensor]) -> Rife:
    network = detect(weights).network(torch.nn)
    assert isinstance(network, Rife)
    return network


def between(network: Rife, first: torch.Tensor, second: torch.Tensor, *timesteps: float) -> torch.Tensor:
    with torch.no_grad():
        return network.between(network.pair(network.features(first), network.features(second)), torch.tensor(timesteps)).frames


def test_every_version_that_exists_is_in_the_table() -> None:
    assert sorted(version for versions in NAMES.values() for version in versions) == oracles.rife_versions()
    assert list(NAMES) == list(VERSIONS)


@pytest.mark.parametrize(("name", "version"), [(name, version) for name, versions in NAMES.items() for version in versions])
def test_every_version_is_recognised_and_computes_what_the_published_code_computes(name: str, version: str, float64: None) -> None:
    torch.manual_seed(0)
    oracle = oracles.rife(version)
    weights = {f"module.{key}": tensor for key, tensor in oracle.state_dict().items()}
    assert detect(weights).name == f"RIFE {name}"
    network = built(weights)
    first, second = oracles.pictures(network.multiple, 2 * network.multiple)
    with torch.no_grad():
        expected = torch.cat([oracles.run_rife(oracle, first, second, t) for t in (0.5, 0.2)])
    torch.testing.assert_close(between(network, first, second, 0.5, 0.2), expected, rtol=0, atol=TOLERANCE)


def test_real_weights_of_4_26_give_the_published_frames() -> None:
    compare_real_weights(oracles.rife_4_26_file(), oracles.rife_4_26(), oracles.run_rife_4_26, 0.25, 3)


@pytest.mark.parametrize("shift", [3, 40])
def test_real_weights_of_4_0_give_the_published_frames_for_small_and_large_motion(shift: int) -> None:
    compare_real_weights(oracles.rife_4_0_file(), oracles.rife_4_0(), oracles.run_rife_4_0, 0.5, shift)


def compare_real_weights(file: Path, theirs: torch.nn.Module, run: Callable[..., torch.Tensor], timestep: float, shift: int) -> None:
    ours = built(read(file)).double()
    with precision.float64(), torch.no_grad():
        first = oracles.pictures(128, 256)[0]
        second = first.roll(shift, 3)
        torch.testing.assert_close(between(ours, first, second, timestep), run(theirs.double(), first, second, timestep), rtol=0, atol=TOLERANCE)


def test_large_motion_starts_4_0_anew_at_doubled_scales(monkeypatch: pytest.MonkeyPatch, float64: None) -> None:
    torch.manual_seed(0)
    oracle = oracles.rife("4.0")
    with torch.no_grad():
        for block in (oracle.block0, oracle.block1):
            block.lastconv.bias[:4] = 20.0
    first, second = oracles.pictures(64, 128)
    network = built(oracle.state_dict())
    tried = []
    estimate = network._estimate

    def noted(pair: Pair, timesteps: torch.Tensor, scales: tuple[int, ...]) -> Estimate:
        tried.append(scales)
        return estimate(pair, timesteps, scales)

    monkeypatch.setattr(network, "_estimate", noted)
    new = between(network, first, second, 0.5)
    assert tried == [(8, 4, 2, 1), (16, 8, 4, 2)]
    with torch.no_grad():
        torch.testing.assert_close(new, oracles.run_rife(oracle, first, second, 0.5), rtol=0, atol=TOLERANCE)


def test_moments_computed_together_equal_moments_computed_one_by_one(float64: None) -> None:
    torch.manual_seed(0)
    for version in ("4.0", "4.6", "4.26"):
        network = built(oracles.rife(version).state_dict())
        first, second = oracles.pictures(64, 64)
        together = between(network, first, second, 0.25, 0.5, 0.75)
        alone = torch.cat([between(network, first, second, t) for t in (0.25, 0.5, 0.75)])
        torch.testing.assert_close(together, alone, rtol=0, atol=TOLERANCE)


def test_equal_frames_of_one_colour_give_that_colour() -> None:
    network = built(oracles.rife("4.26").state_dict())
    grey = torch.full((1, 3, 64, 64), 0.3)
    torch.testing.assert_close(between(network, grey, grey, 0.5), grey)


def test_half_precision_stays_near_single_precision() -> None:
    network = built(read(oracles.rife_4_26_file()))
    first, second = oracles.pictures(64, 64)
    expected = between(network, first, second, 0.5)
    half = between(network.half(), first.half(), second.half(), 0.5)
    assert (half - expected).abs().mean() < 2e-3


def test_what_shrinking_reads_is_the_middle_of_each_cell(float64: None) -> None:
    image = torch.rand(2, 3, 32, 64)
    for scale in (2, 4, 8):
        torch.testing.assert_close(shrink(middles(image, scale), 2), shrink(image, scale))


@pytest.mark.parametrize(("coarse", "fine"), [(16, 8), (8, 4), (4, 2), (4, 1), (32, 8)])
def test_enlarging_then_shrinking_is_enlarging_less(float64: None, coarse: int, fine: int) -> None:
    image = torch.rand(1, 2, 6, 8)
    torch.testing.assert_close(shrink(resize(image, coarse), fine), resize(image, coarse // fine))


def test_sides_are_padded_as_far_as_the_coarsest_block_needs() -> None:
    multiples = {name: Rife(shape, torch.nn).multiple for name, shape in VERSIONS.items() if shape.channels[0] < 300}
    assert multiples["4.6"] == 32
    assert multiples["4.25 or 4.26"] == 64
    assert multiples["4.25 lite"] == 128
    assert multiples["4.0 or 4.1"] == 64  # doubled scales


def test_shapes_say_what_each_block_takes() -> None:
    assert VERSIONS["4.25 or 4.26"].inputs == (15, 28, 28, 28, 28)
    assert VERSIONS["4.26 heavy"].inputs == (39, 52, 52, 52, 52)
    assert RifeShape((192, 128), (2, 1)).inputs == (7, 12)
