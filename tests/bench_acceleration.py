"""What acceleration saves and loses, beside MagCache as published and core's EasyCache and LazyCache at as many model calls as `regular` makes.

    python dev.py bench acceleration [--prompts 16] [--rounds 2]

One table, at the node's defaults. Nearness to `none` is measured on the trained miniature, on prompts that nobody tuned on. Seconds and peak memory
are those of experts of moderate size with random weights, one process per contender, alternating. All run in our sampler, so that they differ in
nothing else. Calls are forward passes per clip, counted at the experts' first block. EasyCache and LazyCache look at what they sample and decide for
a whole batch, here of up to 16 prompts on the miniature; their threshold, one for both experts, is searched in each part until the calls are equal.
"""

import argparse
import copy
import importlib
import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

import bench_sampling as bench
import magcache
from comfyui import has_gpu, import_pack
from engine.sampling.experts import Schedule
from miniature import export
from miniature.acceleration import PROMPTS, distance_of_each, psnr_of_each
from miniature.evaluate import AT_ONCE, Miniature, Setting
from miniature.scenes import Example, scene_of
from peak_memory import PeakMemory, in_own_process
from sampling_runs import block_runs

OURS, MAGCACHE, CORES = ("none", "regular", "high"), "MagCache", ("EasyCache", "LazyCache")
CONTENDERS = (*OURS, MAGCACHE, *CORES)
CORE_START, CORE_END = 0.15, 0.95  # the defaults of core's nodes
THRESHOLDS, TRIES = (0.003, 3.0), 9
WARM_UP = 2  # steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=AT_ONCE, help="clips of the miniature")
    parser.add_argument("--steps", type=int, default=27)
    parser.add_argument("--size", choices=bench.SIZES, default="moderate")
    parser.add_argument("--dtype", choices=bench.DTYPES, default="bfloat16" if has_gpu() else "float32")
    parser.add_argument("--width", type=int, default=832 if has_gpu() else 128)
    parser.add_argument("--height", type=int, default=480 if has_gpu() else 128)
    parser.add_argument("--frames", type=int, default=17 if has_gpu() else 9)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--threshold", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("--calls", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(threshold_of(options) if options.calls else asdict(cost_of(options))))
        return
    nearness = nearness_of_all(options)
    costs = costs_of_all(options)
    print("\n".join([HEAD, *(row(name, nearness[name], costs[name], costs["none"]) for name in CONTENDERS)]))


@dataclass(frozen=True)
class Nearness:
    """Forward passes per clip; for each clip, dB between its frames and those of `none`, and the relative L2 distance between the latents."""

    calls: float
    threshold: float
    psnr: tuple[float, ...]
    distance: tuple[float, ...]


@dataclass(frozen=True)
class Cost:
    calls: float
    threshold: float
    seconds: float
    peak_mb: float


def with_peer(contender: str, expert: Any, steps: int, threshold: float) -> Any:
    """A clone of the expert with the contender's cache on it; the expert itself where the contender is ours."""
    if contender == MAGCACHE:
        return magcache.cached(expert, magcache.planned(Schedule("unipc", steps, bench.SHIFT), bench.BOUNDARY))
    if contender in CORES:
        node = getattr(importlib.import_module("comfy_extras.nodes_easycache"), f"{contender}Node")
        return node.execute(with_input_copied(expert), threshold, CORE_START, CORE_END, False).result[0]
    return expert


def with_input_copied(expert: Any) -> Any:
    """A clone whose network is given a copy of the latent: EasyCache adds to it in place, and in float32 that is the one that core's model_base
    takes the velocity off afterwards, which costs tens of decibels. Experts in half precision copy it anyway."""
    from comfy.patcher_extension import WrappersMP
    clone = expert.clone()
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "copy", lambda network, x, *args, **kwargs: network(x.clone(), *args, **kwargs))
    return clone


def equal_calls(calls_at: Callable[[float], float], wanted: float) -> float:
    """The threshold at which a cache makes `wanted` calls, or comes nearest: the higher it is, the fewer calls."""
    low, high = THRESHOLDS
    calls: dict[float, float] = {}
    while len(calls) < TRIES and wanted not in calls.values():
        middle = math.sqrt(low * high)
        calls[middle] = calls_at(middle)
        low, high = (middle, high) if calls[middle] > wanted else (low, middle)
    return min(calls, key=lambda threshold: abs(calls[threshold] - wanted))


# --- how near, on the miniature -----------------------------------------------------------------------------------------------


class Samples:
    """Latents of the miniature and their calls, by contender."""

    def __init__(self, prompts: int, steps: int) -> None:
        captions = PROMPTS.read_text(encoding="utf-8").splitlines()[:prompts]
        self.miniature, self.setting = Miniature(export.MODELS, [Example(scene_of(caption), caption) for caption in captions]), Setting(steps=steps)

    def of(self, contender: str, threshold: float = 0.0) -> tuple[torch.Tensor, float]:
        peer = copy.copy(self.miniature)
        peer.experts = {name: with_peer(contender, expert, self.setting.steps, threshold) for name, expert in peer.experts.items()}
        with block_runs(*self.miniature.experts.values()) as prompts:
            latents = peer.latents(replace(self.setting, acceleration=contender if contender in OURS else "none"))
        return latents, sum(prompts) / len(latents)

    def calls(self, contender: str, threshold: float) -> float:
        return self.of(contender, threshold)[1]


@torch.inference_mode()
def nearness_of_all(options: argparse.Namespace) -> dict[str, Nearness]:
    samples = Samples(options.prompts, options.steps)
    exact, _ = samples.of("none")
    clips = samples.miniature.decoded(exact)
    results: dict[str, Nearness] = {}
    for name in CONTENDERS:
        threshold = equal_calls(partial(samples.calls, name), results["regular"].calls) if name in CORES else 0.0
        latents, calls = samples.of(name, threshold)
        results[name] = Nearness(calls, threshold, psnr_of_each(samples.miniature.decoded(latents), clips), distance_of_each(latents, exact))
        print(f"miniature, {name}: {calls:g} calls, {statistics.mean(results[name].psnr):.1f} dB", flush=True)
    return results


# --- seconds and memory, on experts of random weights --------------------------------------------------------------------------


def costs_of_all(options: argparse.Namespace) -> dict[str, Cost]:
    runs: dict[str, list[Cost]] = {name: [] for name in CONTENDERS}
    for turn in range(options.rounds):
        for name in CONTENDERS if turn % 2 == 0 else reversed(CONTENDERS):
            threshold = runs[name][0].threshold if turn else search(name, runs["regular"])
            runs[name].append(Cost(**in_own_process("--contender", name, "--threshold", str(threshold))))
            print(f"round {turn + 1}, {name}: {runs[name][-1]}", flush=True)
    return {name: median(of_name) for name, of_name in runs.items()}


def search(contender: str, regular: Sequence[Cost]) -> float:
    return float(in_own_process("--contender", contender, "--calls", str(regular[0].calls))) if contender in CORES else 0.0


def median(runs: Sequence[Cost]) -> Cost:
    return replace(runs[0], seconds=statistics.median(run.seconds for run in runs), peak_mb=statistics.median(run.peak_mb for run in runs))


def random_experts(options: argparse.Namespace) -> tuple[Any, Any]:
    return bench.random_expert(options, 1), bench.random_expert(options, 2)


def contender_run(options: argparse.Namespace, experts: tuple[Any, Any], threshold: float) -> Callable[[int], torch.Tensor]:
    """Samples in so many steps."""
    high, low = (with_peer(options.contender, expert, options.steps, threshold) for expert in experts)
    ours = argparse.Namespace(**{**vars(options), "contender": f"ours unipc {options.contender}"})
    return bench.contender(import_pack(cpu=not has_gpu()), ours, (high, low))


def threshold_of(options: argparse.Namespace) -> float:
    """At which a cache makes `options.calls`."""
    import_pack(cpu=not has_gpu())
    experts = random_experts(options)

    def calls_at(threshold: float) -> float:
        with block_runs(*experts) as prompts:
            contender_run(options, experts, threshold)(options.steps)
        return sum(prompts)

    return equal_calls(calls_at, options.calls)


def cost_of(options: argparse.Namespace) -> Cost:
    """One run after a warm-up."""
    import_pack(cpu=not has_gpu())
    experts = random_experts(options)
    run = contender_run(options, experts, options.threshold)
    run(WARM_UP)
    with block_runs(*experts) as prompts:
        memory, begin = PeakMemory(), bench.now()
        run(options.steps)
        seconds = bench.now() - begin
    return Cost(sum(prompts), options.threshold, seconds, memory.megabytes())


# --- the table -----------------------------------------------------------------------------------------------------------------

HEAD = ("| contender | calls | PSNR to `none`, mean (dB) | worst clip | rel. L2, mean | worst | threshold "
        "| calls, random experts | seconds | ratio | peak MB | ratio | threshold |\n" + "|---" * 13 + "|")


def row(name: str, near: Nearness, cost: Cost, none: Cost) -> str:
    decibels = ["equal", "equal"] if name == "none" else [f"{statistics.mean(near.psnr):.1f}", f"{min(near.psnr):.1f}"]
    cells = [name, f"{near.calls:g}", *decibels, f"{statistics.mean(near.distance):.4f}", f"{max(near.distance):.4f}", threshold_cell(near.threshold),
             f"{cost.calls:g}", f"{cost.seconds:.2f}", f"{cost.seconds / none.seconds:.3f}", f"{cost.peak_mb:.0f}",
             f"{cost.peak_mb / none.peak_mb:.3f}", threshold_cell(cost.threshold)]
    return "| " + " | ".join(cells) + " |"


def threshold_cell(threshold: float) -> str:
    return f"{threshold:.3g}" if threshold else ""


if __name__ == "__main__":
    main()
