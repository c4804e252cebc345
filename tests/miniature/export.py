"""Write the trained miniature as the safetensors files that users have, in a ComfyUI models folder.

    python dev.py miniature export [--recipe full] [--to FOLDER] [--fp8]

Without --to they go where the demo and the tests find them.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

import tiny_weights
from comfyui import import_comfyui
from miniature import colours, loras, text, vae
from miniature.experts import with_full_text
from miniature.recipe import DISTILLED, EXPERTS, LORAS, RECIPES, Recipe
from miniature.training import averaged

EXPERT = "miniature_wan2.2_t2v_{}_noise_{}.safetensors"
TEXT_ENCODER = "miniature_umt5_{}.safetensors"
VAE = "miniature_wan_2.1_vae.safetensors"
LORA = "miniature_{}_{}_noise.safetensors"
MODELS = Path(__file__).parent / "models"
FILES = {"high_noise_model": EXPERT.format("high", "fp16"), "low_noise_model": EXPERT.format("low", "fp16"),
         "text_encoder": TEXT_ENCODER.format("fp8_e4m3fn_scaled"), "vae_name": VAE}
MAX_FILE, MAX_TOGETHER = 16 * 2**20, 32 * 2**20
Weights = dict[str, torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", choices=RECIPES, default="full")
    parser.add_argument("--to", type=Path, default=MODELS, help="a models folder")
    parser.add_argument("--fp8", action="store_true", help="also the experts in fp8_scaled and the text encoder in fp16")
    options = parser.parse_args()
    import_comfyui()
    paths = export(RECIPES[options.recipe], options.to, options.fp8)
    for path in paths:
        print(f"{path.stat().st_size / 2**20:6.2f} MB  {path}")
    sizes = [path.stat().st_size for path in paths]
    print(f"{sum(sizes) / 2**20:6.2f} MB together{'' if sum(sizes) <= MAX_TOGETHER and max(sizes) <= MAX_FILE else ': MORE THAN THE REPO MAY HOLD'}")


def export(recipe: Recipe, folder: Path, fp8: bool = False) -> list[Path]:
    """Write the files below `folder` and return their paths. The text encoder is fp8_scaled, everything else fp16."""
    return written(files(recipe, fp8), folder)


def written(entries: Iterable[tuple[str, Weights]], folder: Path) -> list[Path]:
    """Paths of the files, each of which lies at its place in the folder."""
    paths = []
    for place, weights in entries:
        paths.append(folder / place)
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, paths[-1])
    return paths


def files(recipe: Recipe, fp8: bool) -> Iterator[tuple[str, Weights]]:
    autoencoder = torch.load(vae.finished(recipe), weights_only=True, map_location="cpu")
    turn = colours.turn(recipe, autoencoder)
    for name in EXPERTS:
        expert = colours.turned_expert(with_full_text(averaged(recipe.folder() / f"{name}.pt")), turn)
        yield f"diffusion_models/{EXPERT.format(name, 'fp16')}", half(expert)
        if fp8:
            yield f"diffusion_models/{EXPERT.format(name, 'fp8_scaled')}", tiny_weights.fp8_scaled(expert)
    encoder = text.encoder(recipe.seed)
    yield f"text_encoders/{TEXT_ENCODER.format('fp8_e4m3fn_scaled')}", tiny_weights.fp8_scaled(encoder, keep="shared", marker=0)
    if fp8:
        yield f"text_encoders/{TEXT_ENCODER.format('fp16')}", half(encoder)
    yield f"vae/{VAE}", half(colours.turned_vae(autoencoder, turn))
    yield from lora_files(recipe, (*LORAS, *DISTILLED))


def lora_files(recipe: Recipe, names: Iterable[str]) -> Iterator[tuple[str, Weights]]:
    """Those of the names that were trained."""
    for name in names:
        if (recipe.folder() / f"lora_{name}.pt").exists():
            yield f"loras/{LORA.format(*name.rsplit('_', 1))}", half(loras.lora_file(recipe, name))


def half(weights: Weights) -> Weights:
    return {name: tensor if tensor.dtype == torch.uint8 else tensor.half() for name, tensor in weights.items()}


if __name__ == "__main__":
    main()
