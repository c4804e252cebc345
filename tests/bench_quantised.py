"""Quantised experts with LoRAs on the fly and merged, as a table: relative L2 distance of the latent to that of the float32 experts, and time.

    python dev.py bench quantised

Random experts of a small width on any device, in every format that this ComfyUI reads. The times are those of a run with the LoRAs over one without,
the quickest of several runs each, in turns; of the processor on a CPU, which others may use as well. Random weights: the distances rank formats and
ways, they say nothing about a video of a trained expert.
"""

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import quantised_weights
import tiny_weights
from bench_lora import use_folder
from comfyui import has_gpu, import_pack
from sampling_runs import TOKENS, relative_error
from tiny_weights import Weights

GUIDANCE, STEPS, SHIFT, BOUNDARY = (3.5, 4.0), 4, 5.0, 0.875
FILES = tuple(f"style_{number}.safetensors" for number in range(4))
STRENGTH = 0.15  # of a LoRA beside its weight; four change the latent by about a third
Pair = list[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=4, help="noises over which the distance is taken")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    pack = import_pack(cpu=not has_gpu())
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        bench = Bench(pack, options, Path(folder))
        print("| format | without LoRA | one merged | one on the fly | four merged | four on the fly | time of one on the fly | of four | "
              "of four merged |\n|---|---|---|---|---|---|---|---|---|")
        for name in quantised_weights.FORMATS:
            print(f"| {name} | {quantised_weights.missing(name) or bench.row(name)} |", flush=True)


class Bench:
    """Two experts of one set of weights in any format, four LoRAs on every matrix of their blocks, and the float32 latents to compare with."""

    def __init__(self, pack: Any, options: argparse.Namespace, folder: Path) -> None:
        self.pack, self.options, self.folder = pack, options, folder
        self.weights = [tiny_weights.expert(seed, options.width, 3 * options.width, options.layers) for seed in (21, 22)]
        for seed, name in enumerate(FILES):
            save_file(lora(seed, self.weights[0], options.rank), folder / name)
        use_folder(folder)
        self.prompts = [[[torch.randn(1, TOKENS, 4096, generator=torch.manual_seed(seed)), {}]] for seed in (5, 6)]
        exact = self.pair("")
        self.exact = {count: self.latents(self.with_loras(exact, count)) for count in (0, 1, 4)}

    def row(self, name: str) -> str:
        pair = self.pair(name)
        ways = {(count, merged): self.with_loras(pair, count, merged) for count, merged in ((0, False), (1, True), (1, False), (4, True), (4, False))}
        distances = [f"{relative_error(self.latents(made), self.exact[count]):.4f}" for (count, _), made in ways.items()]
        seconds = quickest([partial(self.latents, made, 1) for made in ways.values()], self.options.rounds)
        return " | ".join([*distances, *(f"{seconds[place] / seconds[0]:.2f}" for place in (2, 4, 3))])

    def pair(self, name: str) -> Pair:
        files = self.pack.nodes.host.models.files
        dtype = files.WEIGHT_DTYPES[name.replace("plain float8", "fp8")] if name in quantised_weights.PLAIN else {}
        return [self.loaded(quantised_weights.quantised(weights, name) if name else weights, dtype) for weights in self.weights]

    def loaded(self, weights: Weights, options: dict[str, Any]) -> Any:
        file = self.folder / "expert.safetensors"
        save_file(weights, file)
        return importlib.import_module("comfy.sd").load_diffusion_model(str(file), model_options=dict(options))

    def with_loras(self, pair: Pair, count: int, merged: bool = False) -> Pair:
        choices = [self.pack.nodes.engine.lora.routing.LoraChoice(name) for name in FILES[:count]]
        return list(self.pack.nodes.host.models.lora.apply(*pair, choices, merged)[:2])

    def latents(self, pair: Pair, seeds: int = 0) -> torch.Tensor:
        run, experts = self.pack.nodes.host.sampling.run, self.pack.nodes.engine.sampling.experts
        guider = run.guider(*pair, *self.prompts, experts.Guidance(*GUIDANCE), SHIFT, "none", BOUNDARY)
        schedule, start = experts.Schedule("unipc", STEPS, SHIFT), {"samples": torch.zeros(1, 16, 3, 16, 16)}
        return torch.cat([run.sample(guider, start, seed, schedule)[0]["samples"] for seed in range(seeds or self.options.seeds)])


def lora(seed: int, weights: Weights, rank: int) -> Weights:
    generator, made = torch.Generator().manual_seed(seed), {}
    for key, weight in weights.items():
        if quantised_weights.is_quantised(key, weight):
            (outputs, inputs), path = weight.shape, f"diffusion_model.{key.removesuffix('.weight')}"
            made[f"{path}.lora_up.weight"] = torch.randn(outputs, rank, generator=generator) * STRENGTH / (rank * inputs) ** 0.5
            made[f"{path}.lora_down.weight"] = torch.randn(rank, inputs, generator=generator)
    return made


def quickest(runs: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Seconds of each, the least of `rounds`; each is run twice in a row, since loading and merging belong to the first."""
    best, clock = [float("inf")] * len(runs), time.perf_counter if has_gpu() else time.process_time
    for _ in range(rounds):
        for place, run in enumerate(runs):
            run()
            began = clock()
            run()
            best[place] = min(best[place], clock() - began)
    return best


if __name__ == "__main__":
    main()
