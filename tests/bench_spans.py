"""A distilled LoRA after an opening without it: ours against core's three samplers, one process per contender, alternating.

    python dev.py bench spans [--size moderate] [--rounds 3]

Six steps, the first two without the LoRA at guidance 3.5, the rest with it at guidance 1. Prints seconds and peak memory of a second run, and of a
first one how long no expert computes where the LoRA comes and where the other expert takes over, each with the LoRA to be patched on. `whole` is ours
with the LoRA on all steps: what a change costs.
"""

import argparse
import importlib
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench_lora import use_folder, write_loras
from bench_sampling import BOUNDARY, DTYPES, SHIFT, SIZES, Call, now, random_expert, timing_wrapper
from comfyui import has_gpu, import_pack
from peak_memory import PeakMemory, alternating

CONTENDERS = ("core", "ours", "whole")
STEPS, OPENING, HIGH_STEPS, GUIDANCE = 6, 2, 3, 3.5
LORA = "lora0.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="moderate")
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        runs = alternating(CONTENDERS, options.rounds, "--folder", folder)
    print("| contender | seconds | pause at the LoRA | pause at the switch | peak MB |\n|---|---|---|---|---|")
    for name, of_name in runs.items():
        typical = {key: statistics.median(run[key] for run in of_name) for key in of_name[0]}
        print(f"| {name} | {typical['seconds']:.2f} | {typical['change']:.3f} | {typical['switch']:.3f} | {typical['peak_mb']:.0f} |")


def measure(options: argparse.Namespace) -> dict[str, float]:
    import_pack(cpu=not has_gpu())
    experts = [random_expert(options, seed) for seed in (1, 2)]
    write_loras(options.folder, experts[0])
    use_folder(options.folder)
    calls: list[Call] = []
    for name, expert in zip(("high", "low"), experts, strict=True):
        expert.model_options["model_function_wrapper"] = timing_wrapper(calls, name)
    run = core_run(experts) if options.contender == "core" else our_run(experts, options.contender)
    with torch.inference_mode():
        run()
        pauses = [(before.expert, after.expert, after.begin - before.end) for before, after in zip(calls, calls[1:], strict=False)]
        memory, begin = PeakMemory(), now()
        run()
    return {"seconds": now() - begin, "peak_mb": memory.megabytes(), "change": max(pause for *names, pause in pauses if names == ["high", "high"]),
            "switch": next(pause for *names, pause in pauses if names == ["high", "low"])}


def prompts_and_latent() -> tuple[Any, Any, dict[str, torch.Tensor]]:
    positive, negative = ([[torch.randn(1, 64, 4096, generator=torch.manual_seed(seed)), {}]] for seed in (1, 2))
    return positive, negative, {"samples": torch.zeros(1, 16, 3, 16, 16)}


def our_run(experts: list[Any], contender: str) -> Callable[[], Any]:
    pack = sys.modules["a_folder_of_another_name"]
    engine, sampling = pack.nodes.engine, pack.nodes.host.sampling.run
    span = engine.spans.Span(1 if contender == "whole" else OPENING + 1, 0)
    high, low, *_ = pack.nodes.host.models.lora.apply(*experts, [engine.lora.routing.LoraChoice(LORA, span=span)])
    positive, negative, latent = prompts_and_latent()
    guidance = engine.sampling.experts.Guidance(1.0, 1.0, OPENING, GUIDANCE)
    guider = sampling.guider(high, low, positive, negative, guidance, SHIFT, "none", BOUNDARY)
    return lambda: sampling.sample(guider, latent, 1, engine.sampling.experts.Schedule("euler", STEPS, SHIFT))


def core_run(experts: list[Any]) -> Callable[[], Any]:
    """Three KSamplerAdvanced, the LoRA on the second and the third."""
    nodes = importlib.import_module("nodes")
    shift = importlib.import_module("comfy_extras.nodes_model_advanced").ModelSamplingSD3()
    plain, low = (shift.patch(expert, SHIFT)[0] for expert in experts)
    high, low = (nodes.LoraLoaderModelOnly().load_lora_model_only(expert, LORA, 1.0)[0] for expert in (plain, low))
    positive, negative, latent = prompts_and_latent()
    sample = nodes.KSamplerAdvanced().sample

    def run() -> Any:
        (first,) = sample(plain, "enable", 1, STEPS, GUIDANCE, "euler", "simple", positive, negative, latent, 0, OPENING, "enable")
        (second,) = sample(high, "disable", 1, STEPS, 1.0, "euler", "simple", positive, negative, first, OPENING, HIGH_STEPS, "enable")
        return sample(low, "disable", 1, STEPS, 1.0, "euler", "simple", positive, negative, second, HIGH_STEPS, 10000, "disable")

    return run


if __name__ == "__main__":
    main()
