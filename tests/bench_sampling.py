"""Sampling time and memory: ours against core's two KSamplerAdvanced, same experts, same steps, one process per contender, alternating.

    python dev.py bench sampling                         on this machine's CPU or GPU, experts of moderate size
    python dev.py bench sampling --size 14b --frames 81  the real shape with random weights, needs a GPU with 80 GB or offloading

Prints time and peak memory ratios against core, model calls and time of `none` and `regular`, and draws the schedule (.dev/bench/schedule.png).
"""

import argparse
import importlib
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from comfyui import ROOT, has_gpu, import_pack
from peak_memory import PeakMemory, alternating
from tiny_weights import fp8_scaled

SIZES = {"moderate": {"dim": 512, "ffn_dim": 2048, "num_layers": 8}, "wide": {"dim": 2560, "ffn_dim": 8192, "num_layers": 3},
         "14b": {"dim": 5120, "ffn_dim": 13824, "num_layers": 40}}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "fp8": torch.float8_e4m3fn, "fp8_scaled": None}
CONTENDERS = ("core", "ours", "ours regular", "ours unipc")
SHIFT, GUIDANCE, BOUNDARY = 5.0, (3.5, 4.0), 0.875
RESULTS = ROOT / ".dev" / "bench"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="moderate")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16" if has_gpu() else "float32")
    parser.add_argument("--width", type=int, default=832 if has_gpu() else 256)
    parser.add_argument("--height", type=int, default=480 if has_gpu() else 256)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, help="only the time ratio of ours to core, from so many alternating runs in one process")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pairs:
        print_paired_ratio(options)
        return
    if options.contender:
        print(json.dumps(measure(options)))
        return
    runs = alternating(CONTENDERS, options.rounds)
    print_table(runs)
    print(f"schedule drawn to {draw_schedule()}")


def print_paired_ratio(options: argparse.Namespace) -> None:
    """Neighbours in time share what else the machine does, so that their ratio is steadier than that of separate processes."""
    pack = import_pack(cpu=not has_gpu())
    experts = tuple(random_expert(options, seed) for seed in (1, 2))
    runs = {name: contender(pack, argparse.Namespace(**{**vars(options), "contender": name}), experts) for name in ("core", "ours")}
    ratios = []
    for turn in range(options.pairs + 1):
        seconds = {}
        for name in ("core", "ours") if turn % 2 else ("ours", "core"):
            start = now()
            runs[name](options.steps)
            seconds[name] = now() - start
        ratios.append(seconds["ours"] / seconds["core"])
    warm = sorted(ratios[1:])
    print(f"time of ours / core, median of {len(warm)} pairs: {statistics.median(warm):.3f} (quartiles {warm[len(warm) // 4]:.3f}"
          f"..{warm[-1 - len(warm) // 4]:.3f})")


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Seconds, peak memory, model calls and the pause at the expert switch of one run, after a warm-up of two steps."""
    pack = import_pack(cpu=not has_gpu())
    experts = tuple(random_expert(options, seed) for seed in (1, 2))
    calls: list[Call] = []
    computed: list[int] = []
    for name, expert in zip(("high", "low"), experts, strict=True):
        expert.set_model_unet_function_wrapper(timing_wrapper(calls, name))
        expert.model.diffusion_model.blocks[0].register_forward_hook(lambda block, args, output: computed.append(len(output)))
    run = contender(pack, options, experts)
    run(2)
    calls.clear()
    computed.clear()
    memory = PeakMemory()
    start = time.perf_counter()
    run(options.steps)
    seconds = time.perf_counter() - start
    pause = next(call.begin for call in calls if call.expert == "low") - max(call.end for call in calls if call.expert == "high")
    return {"seconds": seconds, "peak_mb": memory.megabytes(), "model_calls": sum(computed), "switch_seconds": pause}


@dataclass(frozen=True)
class Call:
    """One call of an expert, in seconds."""

    expert: str
    begin: float
    end: float
    prompts: int  # evaluated at once

    @property
    def seconds(self) -> float:
        return self.end - self.begin


def timing_wrapper(calls: list[Call], expert: str) -> Callable[..., torch.Tensor]:
    """A closure, because cloning a model copies everything else that is in its options."""

    def timed(apply: Callable[..., torch.Tensor], args: dict[str, Any]) -> torch.Tensor:
        begin = now()
        output = apply(args["input"], args["timestep"], **args["c"])
        calls.append(Call(expert, begin, now(), len(args["input"])))
        return output

    return timed


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def random_expert(options: argparse.Namespace, seed: int) -> Any:
    """A Wan expert of the asked size with random weights, through core's loader."""
    import comfy.ldm.wan.model
    import comfy.ops
    import comfy.sd
    size = SIZES[options.size]
    with torch.device("meta"):
        shapes = comfy.ldm.wan.model.WanModel(model_type="t2v", num_heads=size["dim"] // 128, operations=comfy.ops.disable_weight_init, **size)
    device = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
    generator = torch.Generator(device).manual_seed(seed)
    dtype = torch.float32 if options.dtype == "float32" else torch.bfloat16
    weights = {name: torch.randn(tensor.shape, generator=generator, device=device, dtype=dtype) * 0.02
               for name, tensor in shapes.state_dict().items()}
    weights = fp8_scaled(weights) if options.dtype == "fp8_scaled" else weights
    return comfy.sd.load_diffusion_model_state_dict(weights, model_options={"dtype": DTYPES[options.dtype]} if DTYPES[options.dtype] else {})


def contender(pack: Any, options: argparse.Namespace, experts: tuple[Any, Any]) -> Callable[[int], torch.Tensor]:
    positive, negative = ([[torch.randn(1, 512, 4096, generator=torch.manual_seed(seed)), {}]] for seed in (1, 2))
    latent = {"samples": torch.zeros(1, 16, (options.frames - 1) // 4 + 1, options.height // 8, options.width // 8)}
    if options.contender == "core":
        return lambda steps: core_run(experts, positive, negative, latent, steps)
    plan, sampling = pack.nodes.engine.sampling.experts, pack.nodes.host.sampling.run
    acceleration = next((word for word in options.contender.split() if word in ("regular", "high")), "none")
    solver = "unipc" if "unipc" in options.contender else "euler"
    guider = sampling.guider(*experts, positive, negative, plan.Guidance(*GUIDANCE), SHIFT, acceleration, BOUNDARY)
    return lambda steps: sampling.sample(guider, latent, 1, plan.Schedule(solver, steps, SHIFT))[0]["samples"]


def core_run(experts: tuple[Any, Any], positive: Any, negative: Any, latent: dict[str, Any], steps: int) -> torch.Tensor:
    """Core's template: two KSamplerAdvanced with euler and simple, split where the boundary falls."""
    nodes = importlib.import_module("nodes")
    from engine.sampling.schedules import euler_sigmas
    shift = importlib.import_module("comfy_extras.nodes_model_advanced").ModelSamplingSD3()
    high, low = (shift.patch(expert, SHIFT)[0] for expert in experts)
    split = int((euler_sigmas(steps, SHIFT)[:-1] * 1000 >= BOUNDARY * 1000).sum())
    sample = nodes.KSamplerAdvanced().sample
    (first,) = sample(high, "enable", 1, steps, GUIDANCE[0], "euler", "simple", positive, negative, latent, 0, split, "enable")
    return sample(low, "disable", 1, steps, GUIDANCE[1], "euler", "simple", positive, negative, first, split, 10000, "disable")[0]["samples"]


def print_table(runs: dict[str, list[dict[str, float]]]) -> None:
    typical = {name: {key: statistics.median(run[key] for run in of_name) for key in of_name[0]} for name, of_name in runs.items()}
    core = typical["core"]
    print(f"\n{'contender':<14}{'model calls':>12}{'seconds':>10}{'ratio':>8}{'per call':>10}{'peak MB':>10}{'ratio':>8}{'switch s':>10}")
    for name, of_name in typical.items():
        per_call = (of_name["seconds"] / of_name["model_calls"]) / (core["seconds"] / core["model_calls"])
        print(f"{name:<14}{of_name['model_calls']:>12.0f}{of_name['seconds']:>10.2f}{of_name['seconds'] / core['seconds']:>8.3f}{per_call:>10.3f}"
              f"{of_name['peak_mb']:>10.0f}{of_name['peak_mb'] / core['peak_mb']:>8.3f}{of_name['switch_seconds']:>10.3f}")


def draw_schedule() -> str:
    """Sigma over steps at the hosted defaults, coloured by expert, forecast steps hollow."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from engine.sampling.experts import Guidance, Schedule
    from engine.sampling.plan import plan_of
    plan = plan_of(Schedule("unipc", 27, SHIFT), BOUNDARY, Guidance(*GUIDANCE), "regular")
    sigmas = [step.sigma for step in plan.steps]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(range(1, len(sigmas) + 1), sigmas, color="0.8", zorder=1)
    axes.axhline(BOUNDARY, color="0.5", linestyle=":", zorder=1)
    axes.annotate(f"boundary {BOUNDARY}", (0.6, BOUNDARY - 0.015), va="top", color="0.4")
    for name, colour, high in (("high-noise expert", "tab:orange", True), ("low-noise expert", "tab:blue", False)):
        for forecast in (False, True):
            points = [(index, step.sigma) for index, step in enumerate(plan.steps, 1) if step.high is high and (step.trend is not None) is forecast]
            label = f"{name}, {'forecast' if forecast else 'computed'}: {len(points)}"
            axes.scatter(*zip(*points, strict=True), s=45, zorder=2, label=label, edgecolors=colour, facecolors="white" if forecast else colour)
    axes.set(xlabel="step", ylabel="sigma", title=plan.describe(), ylim=(0, 1.03))
    axes.title.set_fontsize(8)
    axes.legend(frameon=False, loc="lower left")
    RESULTS.mkdir(parents=True, exist_ok=True)
    figure.savefig(RESULTS / "schedule.png", dpi=120)
    return str(RESULTS / "schedule.png")


if __name__ == "__main__":
    main()
