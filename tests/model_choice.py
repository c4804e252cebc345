"""The models and the run that `calibrate` and `compare` are asked for: files as ComfyUI lists them, or the miniature's."""

import argparse
from collections.abc import Sequence
from typing import Any

from comfyui import COMFYUI
from demo import miniature_models
from engine.model_files import DOWNLOADS
from miniature import export

OFFICIAL = {"high": tuple(DOWNLOADS["diffusion_models"])[0], "low": tuple(DOWNLOADS["diffusion_models"])[1],
            "text_encoder": tuple(DOWNLOADS["text_encoders"])[0], "vae": tuple(DOWNLOADS["vae"])[0]}
MINIATURE = {"high": export.FILES["high_noise_model"], "low": export.FILES["low_noise_model"],
             "text_encoder": export.FILES["text_encoder"], "vae": export.FILES["vae_name"]}


def add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--own-models", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--high", metavar="FILE", help="the high-noise expert; default: the official file")
    parser.add_argument("--low", metavar="FILE", help="the low-noise expert; default: the official file")
    parser.add_argument("--text-encoder", metavar="FILE", help="default: the official file")
    parser.add_argument("--lora-high", metavar="FILE", help="a LoRA for the high-noise expert")
    parser.add_argument("--lora-low", metavar="FILE", help="a LoRA for the low-noise expert")


def add_run(parser: argparse.ArgumentParser, steps: int, shift: float, guidance: tuple[float, float]) -> None:
    """What the run is, with these defaults."""
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--shift", type=float, default=shift)
    parser.add_argument("--guidance", type=float, nargs=2, default=guidance, metavar=("HIGH", "LOW"))
    parser.add_argument("--resolution", default="480p", choices=("480p", "580p", "720p"), help="of your own models")
    parser.add_argument("--frames", type=int, default=81, help="of your own models")
    parser.add_argument("--seed", type=int, default=0)


def choices(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments, by default of the command line; files that are not named are the official ones, or the miniature's."""
    options = parser.parse_args(arguments)
    files = OFFICIAL if options.own_models else MINIATURE
    return argparse.Namespace(**{name: files.get(name) if value is None else value for name, value in vars(options).items()})


def find_models(own_models: bool) -> None:
    """Point ComfyUI at its own models as main.py would, or at the miniature."""
    import folder_paths
    from utils.extra_config import load_extra_path_config
    if own_models:
        extra = COMFYUI / "extra_model_paths.yaml"
        if extra.exists():
            load_extra_path_config(str(extra))
        return
    folder = miniature_models()
    for name in ("diffusion_models", "text_encoders", "vae", "loras"):
        folder_paths.add_model_folder_path(name, str(folder / name))


def with_lora(model: Any, name: str | None) -> Any:
    if name is None:
        return model
    import comfy.sd
    import comfy.utils
    import folder_paths
    lora = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("loras", name), safe_load=True)
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]
