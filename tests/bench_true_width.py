"""Two experts as wide as Wan 2.2's, with as many of the 40 layers as memory allows, through Expert Loader, Apply LoRAs and two steps.

    python dev.py bench true_width --layers 16

Writes fp8_scaled experts (0.35 GB a layer) and four LoRAs of rank 64 with random weights to a temporary folder, and prints after each stage the
seconds, the process's own memory (without pages of files that the system may drop) and its peak so far. GB are 2^30 bytes.
"""

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file

from bench_lora import use_folder
from comfyui import has_gpu, import_pack
from sampling_runs import TOKENS
from tiny_weights import Weights

WIDTH, FFN, RANK, FILES = 5120, 13824, 64, tuple(f"style_{number}.safetensors" for number in range(4))
SIDES = ("high", "low")
STATUS = Path("/proc/self/status")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--loras", type=int, default=4)
    parser.add_argument("--quantised", default="on the fly", choices=("on the fly", "merged"))
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder:
        write(options.folder, options.layers)
        return
    with tempfile.TemporaryDirectory(prefix="wan22_true_width_") as folder:
        subprocess.run([sys.executable, *sys.argv, "--folder", folder], check=True)
        for stage in stages(Path(folder), options.loras, options.quantised):
            print(stage, flush=True)


def write(folder: Path, layers: int) -> None:
    """In a process of its own, which takes its memory with it. All numbers of a matrix come from one row of random ones, at other places."""
    row = (torch.randn(FFN * WIDTH + 2**20, generator=torch.Generator().manual_seed(1)) * 100).to(torch.float8_e4m3fn)
    for seed, side in enumerate(SIDES):
        save_file(expert(row, torch.Generator().manual_seed(seed), layers), folder / f"{side}_noise.safetensors")
    for seed, name in enumerate(FILES):
        save_file(dict(lora(torch.Generator().manual_seed(seed), layers)), folder / name)


def matrices(layers: int) -> Iterator[tuple[str, int, int]]:
    """Path, outputs and inputs of every matrix of the blocks."""
    for block in range(layers):
        for attention in ("self_attn", "cross_attn"):
            yield from ((f"blocks.{block}.{attention}.{projection}", WIDTH, WIDTH) for projection in "qkvo")
        yield f"blocks.{block}.ffn.0", FFN, WIDTH
        yield f"blocks.{block}.ffn.2", WIDTH, FFN


def expert(row: torch.Tensor, generator: torch.Generator, layers: int) -> Weights:
    weights: Weights = {"scaled_fp8": torch.zeros(2, dtype=torch.float8_e4m3fn)}
    outside = (("text_embedding.0", WIDTH, 4096), ("text_embedding.2", WIDTH, WIDTH), ("time_embedding.0", WIDTH, 256),
               ("time_embedding.2", WIDTH, WIDTH), ("time_projection.1", 6 * WIDTH, WIDTH), ("head.head", 64, WIDTH))
    for path, outputs, inputs in (*matrices(layers), *outside):
        place = int(torch.randint(2**20, (), generator=generator))
        repeated = row[place:place + outputs * inputs] if outputs * inputs <= FFN * WIDTH else torch.cat([row[place:place + FFN * WIDTH]] * 3)
        weights[f"{path}.weight"] = repeated[:outputs * inputs].view(outputs, inputs)
        weights[f"{path}.scale_weight"] = torch.tensor(0.01 / inputs**0.5)
        weights[f"{path}.bias"] = torch.zeros(outputs, dtype=torch.float16)
    for block in range(layers):
        for name in ("self_attn.norm_q", "self_attn.norm_k", "cross_attn.norm_q", "cross_attn.norm_k", "norm3"):
            weights[f"blocks.{block}.{name}.weight"] = torch.ones(WIDTH, dtype=torch.float16)
        weights[f"blocks.{block}.norm3.bias"] = torch.zeros(WIDTH, dtype=torch.float16)
        weights[f"blocks.{block}.modulation"] = torch.randn(1, 6, WIDTH, generator=generator).half() / WIDTH**0.5
    weights["head.modulation"] = torch.randn(1, 2, WIDTH, generator=generator).half() / WIDTH**0.5
    weights["patch_embedding.weight"] = torch.randn(WIDTH, 16, 1, 2, 2, generator=generator).half() / 8
    weights["patch_embedding.bias"] = torch.zeros(WIDTH, dtype=torch.float16)
    return {key: tensor.clone() for key, tensor in weights.items()}


def lora(generator: torch.Generator, layers: int) -> Iterator[tuple[str, torch.Tensor]]:
    for path, outputs, inputs in matrices(layers):
        yield f"diffusion_model.{path}.lora_up.weight", (torch.randn(outputs, RANK, generator=generator) * 0.1 / (RANK * inputs) ** 0.5).bfloat16()
        yield f"diffusion_model.{path}.lora_down.weight", torch.randn(RANK, inputs, generator=generator).bfloat16()


def stages(folder: Path, loras: int, quantised: str) -> Iterator[str]:
    pack = import_pack(cpu=not has_gpu())
    use_folder(folder)
    importlib.import_module("folder_paths").add_model_folder_path("diffusion_models", str(folder), is_default=True)
    began, spent = time.perf_counter(), time.process_time()

    def stage(name: str) -> str:
        nonlocal began, spent
        seconds, began = time.perf_counter() - began, time.perf_counter()
        processor, spent = time.process_time() - spent, time.process_time()
        return json.dumps({"stage": name, "seconds": round(seconds, 1), "processor_seconds": round(processor, 1), "own_gb": memory("RssAnon"),
                           "peak_gb": memory("VmHWM")})

    run, experts, routing = pack.nodes.host.sampling.run, pack.nodes.engine.sampling.experts, pack.nodes.engine.lora.routing
    with torch.no_grad():
        yield stage("ComfyUI")
        pair = node(pack.nodes.experts.Wan22ExpertLoader).execute(*(f"{side}_noise.safetensors" for side in SIDES), "default").result
        yield stage("Wan 2.2 Expert Loader")
        stack = tuple(routing.LoraChoice(name) for name in FILES[:loras])
        pair = node(pack.nodes.lora.Wan22ApplyLoRAs).execute(*pair, stack, quantised).result[:2]
        yield stage(f"Wan 2.2 Apply LoRAs, {loras}, {quantised}")
        prompts = [[[torch.randn(1, TOKENS, 4096, generator=torch.manual_seed(seed)), {}]] for seed in (5, 6)]
        guider = run.guider(*pair, *prompts, experts.Guidance(3.5, 4.0), 5.0, "none", 0.875)
        latent = {"samples": torch.zeros(1, 16, 2, 8, 8)}
        for turn in ("first run", "second run"):
            run.sample(guider, latent, 1, experts.Schedule("unipc", 2, 5.0))
            yield stage(f"two steps at 64x64x5, one an expert, {turn}")


def node(declared: Any) -> Any:
    """The node as the server runs it, but for the page that it would talk to."""
    return type(declared.__name__, (declared,), {"hidden": SimpleNamespace(unique_id=None)})


def memory(field: str) -> float:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return round(int(line.split()[1]) / 2**20, 2)


if __name__ == "__main__":
    main()
