"""Four LoRAs on both experts: ours against eight core LoraLoaderModelOnly nodes, one process per contender, alternating.

    python dev.py bench lora

Prints time from the files to patched weights (loading, converting, merging into every weight, as before the first step) and peak memory.
"""

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from bench_sampling import random_expert
from comfyui import has_gpu, import_pack
from peak_memory import PeakMemory, alternating

CONTENDERS = ("core", "ours")
SCALE, RANK, FILES = 0.8, 64, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("moderate", "wide", "14b"), default="wide")
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16", "fp8"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        runs = alternating(CONTENDERS, options.rounds, "--folder", folder)
    seconds = {name: statistics.median(run["seconds"] for run in of_name) for name, of_name in runs.items()}
    peak = {name: statistics.median(run["peak_mb"] for run in of_name) for name, of_name in runs.items()}
    print(f"\ntime ratio {seconds['ours'] / seconds['core']:.3f} ({seconds['ours']:.2f} s / {seconds['core']:.2f} s), "
          f"peak memory ratio {peak['ours'] / peak['core']:.3f} ({peak['ours']:.0f} MB / {peak['core']:.0f} MB)")


def measure(options: argparse.Namespace) -> dict[str, float]:
    import_pack(cpu=not has_gpu())
    import comfy.model_management
    experts = [random_expert(options, seed) for seed in (1, 2)]
    write_loras(options.folder, experts[0])
    use_folder(options.folder)
    memory, start = PeakMemory(), time.perf_counter()
    with torch.inference_mode():
        patched = core_patched(experts) if options.contender == "core" else our_patched(experts)
        comfy.model_management.load_models_gpu(patched, force_full_load=True)
    return {"seconds": time.perf_counter() - start, "peak_mb": memory.megabytes()}


def write_loras(folder: Path, expert: Any) -> None:
    """Four kohya-style files on all linear layers of all blocks, once."""
    shapes = {key: tensor.shape for key, tensor in expert.model.diffusion_model.state_dict().items()
              if key.startswith("blocks.") and key.endswith(".weight") and tensor.ndim == 2}
    for index in range(FILES):
        path = folder / f"lora{index}.safetensors"
        if not path.exists():
            generator = torch.Generator().manual_seed(index)
            tensors = {}
            for key, (out, inner) in shapes.items():
                name = "lora_unet_" + key.removesuffix(".weight").replace(".", "_")
                tensors[f"{name}.lora_up.weight"] = torch.randn(out, RANK, generator=generator).bfloat16()
                tensors[f"{name}.lora_down.weight"] = torch.randn(RANK, inner, generator=generator).bfloat16()
                tensors[f"{name}.alpha"] = torch.tensor(float(RANK))
            save_file(tensors, path)


def use_folder(folder: Path) -> None:
    import folder_paths
    folder_paths.add_model_folder_path("loras", str(folder), is_default=True)


def core_patched(experts: list[Any]) -> list[Any]:
    nodes = importlib.import_module("nodes")
    patched = []
    for expert in experts:
        for index in range(FILES):
            (expert,) = nodes.LoraLoaderModelOnly().load_lora_model_only(expert, f"lora{index}.safetensors", SCALE)
        patched.append(expert)
    return patched


def our_patched(experts: list[Any]) -> list[Any]:
    pack = sys.modules["a_folder_of_another_name"]
    choices = [pack.nodes.engine.lora.routing.LoraChoice(f"lora{index}.safetensors", SCALE) for index in range(FILES)]
    return list(pack.nodes.host.models.lora.apply(*experts, choices)[:2])


if __name__ == "__main__":
    main()
