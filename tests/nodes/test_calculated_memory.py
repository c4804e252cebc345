"""What bench_memory calculates: only what is held counts, and what core sets aside is more. Against measured peaks: its --check."""

from types import ModuleType

import pytest
import torch

import bench_memory
from live_memory import LiveMemory


def test_only_what_is_held_counts() -> None:
    before = torch.ones(1000)
    with torch.no_grad(), LiveMemory("cpu") as memory:
        first = before + 1
        assert memory.now == first.nbytes
        second = torch.cat((first, first))
        view = second[:10]
        assert memory.now == memory.peak == first.nbytes + second.nbytes
        del first, second
        assert memory.now == view.untyped_storage().nbytes()
        del view
        assert (memory.now, before[5:].add_(1).sum().item()) == (0, 995 * 2)


def test_the_first_block_takes_the_most(pack: ModuleType) -> None:
    short = bench_memory.activations((832, 480), 17, 1, blocks=1)
    assert bench_memory.activations((832, 480), 17, 1, blocks=4) == pytest.approx(short, rel=0.001)


def test_core_sets_aside_more_than_a_run_takes(pack: ModuleType) -> None:
    """Each prompt's share of it covers an expert of the real shape and what our sampler holds beside it, with a quarter left over, so that nothing
    has to be added for either.
    """
    held = bench_memory.Sampling(pack).latents("ours unipc regular", at_once=True)
    sizes = pack.nodes.engine.video.sizes.LANDSCAPE
    for size, frames in ((sizes["480p"], 17), (sizes["720p"], 161)):
        for aside, prompts in zip(bench_memory.set_aside(size, frames), (2, 1), strict=True):
            taken = bench_memory.activations(size, frames, prompts) + held * bench_memory.latent_bytes(size, frames)
            assert 1.25 * taken < aside


def test_acceleration_keeps_two_latents(pack: ModuleType) -> None:
    sampling = bench_memory.Sampling(pack)
    for at_once in (False, True):
        more = sampling.latents("ours unipc regular", at_once) - sampling.latents("ours unipc", at_once)
        assert more == pytest.approx(2, abs=0.01)
