"""What bench_memory calculates is what a run takes, and what core sets aside is more."""

import json
import os
import subprocess
import sys
from types import ModuleType

import pytest
import torch

import bench_memory
from comfyui import ROOT
from live_memory import LiveMemory
from peak_memory import CLEAR, EVERY_TENSOR_RETURNS_ITS_MEMORY

TOLERANCE = {"expert": 0.08, "decoding": 0.2}  # convolutions take some memory inside


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


@pytest.mark.skipif(not CLEAR.exists(), reason="only Linux tells the peak of a stretch")
def test_calculated_peaks_are_those_that_are_measured() -> None:
    """Core's networks, small, in float32 on the processor: an expert with both prompts, and our decoding."""
    done = subprocess.run([sys.executable, "tests/bench_memory.py", "--check"], cwd=ROOT, env={**os.environ, **EVERY_TENSOR_RETURNS_ITS_MEMORY},
                          text=True, stdout=subprocess.PIPE, check=True)
    peaks = json.loads(done.stdout.splitlines()[-1])
    assert set(peaks) == set(TOLERANCE)
    for name, peak in peaks.items():
        assert peak["calculated"] == pytest.approx(peak["measured"], rel=TOLERANCE[name]), name


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
