"""Train the miniature Wan 2.2: VAE, both experts and the LoRAs, in about two hours on 2 CPU cores. Stop it when you like; it goes on where it was.

    python dev.py miniature train                         all of it, with the recipe's numbers of steps: the same numbers, the same weights
    python dev.py miniature train --minutes vae=25 experts=65 loras=4    lengths by the clock; the steps that fit are printed and kept
    python dev.py miniature train vae latents             some parts only

Checkpoints and loss curves lie in .dev/miniature.
"""

import argparse
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial

import torch

from comfyui import import_comfyui
from miniature import distilled, experts, latents, loras, vae
from miniature.recipe import DISTILLED, EXPERTS, LORAS, RECIPES, Recipe

PARTS = ("vae", "latents", "experts", "loras")
DISTILLATION = ("trajectories", "distilled")  # once the experts are exported: distil.py


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=(*PARTS, []), help=f"default: {', '.join(PARTS)}")
    parser.add_argument("--recipe", choices=RECIPES, default="full")
    parser.add_argument("--minutes", nargs="*", default=[], metavar="PART=MINUTES", help="vae, experts or loras (each pair)")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    minutes = {part: float(number) for part, number in (entry.split("=") for entry in options.minutes)}
    torch.set_num_threads(options.threads)
    if options.job:
        warnings.filterwarnings("ignore", "Mismatch dtype between input and weight")  # a norm in float32 between bfloat16 layers, as it should be
        import_comfyui(cpu=not torch.cuda.is_available())
        run(RECIPES[options.recipe], options.job, minutes)
        return 0
    return conduct(options.parts or PARTS, options, minutes)


def conduct(parts: Sequence[str], options: argparse.Namespace, minutes: dict[str, float]) -> int:
    """Run the parts one after the other, each as processes that share the cores: a small network gains little from a second thread."""
    cores = options.threads
    steps: dict[str, list[list[str]]] = {
        "vae": [["vae"]],
        "latents": [[f"latents/{part}/{cores}" for part in range(cores)]],
        "experts": [list(EXPERTS)],
        "loras": [["striped_high", "striped_low"], ["reversed_high", "reversed_low"], ["framed_low"]],
        "trajectories": [[f"trajectories/{part}/{cores}" for part in range(cores)]],
        "distilled": [list(DISTILLED)],
    }
    for part in (part for part in steps if part in parts):
        begin = time.monotonic()
        for jobs in steps[part]:
            if code := together(jobs, options):
                return code
        print(f"{part}: {(time.monotonic() - begin) / 60:.1f} minutes", flush=True)
    return 0


def together(jobs: Sequence[str], options: argparse.Namespace) -> int:
    threads = str(max(1, options.threads // len(jobs)))
    command = [sys.executable, "-m", "miniature.train", "--recipe", options.recipe, "--threads", threads, "--minutes", *options.minutes]
    processes = [subprocess.Popen([*command, "--job", job]) for job in jobs]
    try:
        return max(abs(process.wait()) for process in processes)
    finally:
        for process in processes:
            process.terminate()


def run(recipe: Recipe, job: str, minutes: dict[str, float]) -> None:
    name, *numbers = job.split("/")
    jobs: dict[str, Callable[[], None]] = {
        "vae": lambda: train_vae(recipe, minutes.get("vae")),
        "latents": lambda: latents.write_shards(recipe, *map(int, numbers)),
        **{expert: partial(experts.train_expert, recipe, expert, minutes.get("experts")) for expert in EXPERTS},
        **{lora: partial(loras.train_lora, recipe, lora, minutes.get("loras")) for lora in LORAS},
        "trajectories": lambda: distilled.write_trajectories(recipe, *map(int, numbers)),
        **{lora: partial(distilled.train_distilled, recipe, lora) for lora in DISTILLED},
    }
    jobs[name]()


def train_vae(recipe: Recipe, minutes: float | None) -> None:
    vae.train_vae(recipe, minutes)
    vae.finish_vae(recipe)


if __name__ == "__main__":
    sys.exit(main())
