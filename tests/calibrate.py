"""Measure the magnitude curves of a pair of experts for `acceleration: regular`, in one run; prints them as the table in magcache_tables.py.

    python dev.py --comfyui PATH calibrate --high HIGH --low LOW [--lora-high FILE --lora-low FILE]

File names are those ComfyUI lists. Without --comfyui, the miniature is measured.
"""

import argparse
import importlib

from comfyui import COMFYUI, has_gpu, import_pack
from demo import MINIATURE_PROMPT, miniature_models
from miniature import export, scenes

PROMPT = "A red fox trots along a snowy forest path at dawn, the camera tracks sideways."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--own-models", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--high", default=export.FILES["high_noise_model"])
    parser.add_argument("--low", default=export.FILES["low_noise_model"])
    parser.add_argument("--text-encoder", default=export.FILES["text_encoder"])
    parser.add_argument("--lora-high", help="a LoRA for the high-noise expert")
    parser.add_argument("--lora-low", help="a LoRA for the low-noise expert")
    parser.add_argument("--prompt", help="default: a fox in the snow, or for the miniature a red circle")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--shift", type=float, default=12.0)
    parser.add_argument("--guidance", type=float, nargs=2, default=(4.0, 3.0), metavar=("HIGH", "LOW"))
    parser.add_argument("--resolution", default="480p", choices=("480p", "580p", "720p"))
    parser.add_argument("--frames", type=int, default=81)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    pack = import_pack(cpu=not has_gpu())
    high_curve, low_curve = measure(pack, options)
    print(f"# {options.high}, {options.low}, {options.steps} UniPC steps, shift {options.shift}, guidance {options.guidance}")
    for name, curve in (("HIGH", high_curve), ("LOW", low_curve)):
        print(f"{name} = MagnitudeCurve(\n    {curve.timesteps},\n    {tuple((round(c, 5), round(u, 5)) for c, u in curve.ratios)},\n)")


def measure(pack, options: argparse.Namespace):
    import torch
    find_models(options.own_models)
    models, text, latents = pack.nodes.host.models.files, pack.nodes.host.text, pack.nodes.host.video.latents
    plan = pack.nodes.engine.sampling.experts
    from engine.video.sizes import Size, video_size
    size = video_size(options.resolution, "16:9", 0, 0) if options.own_models else Size(scenes.SIZE, scenes.SIZE)
    frames = options.frames if options.own_models else scenes.FRAMES
    prompt = options.prompt or (PROMPT if options.own_models else MINIATURE_PROMPT)
    with torch.inference_mode():
        clip = models.load_text_encoder(options.text_encoder, "default")
        positive, negative = text.encode(clip, prompt), text.encode(clip, "")
        high = with_lora(models.load_expert(options.high, "default"), options.lora_high)
        low = with_lora(models.load_expert(options.low, "default"), options.lora_low)
        return importlib.import_module(f"{pack.__name__}.nodes.host.sampling.calibration").calibrate(
            high, low, positive, negative, plan.Guidance(*options.guidance), latents.empty(size, frames), options.seed,
            plan.Schedule("unipc", options.steps, options.shift), plan.BOUNDARY)


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


def with_lora(model, name: str | None):
    if name is None:
        return model
    import comfy.sd
    import comfy.utils
    import folder_paths
    lora = comfy.utils.load_torch_file(folder_paths.get_full_path_or_raise("loras", name), safe_load=True)
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]


if __name__ == "__main__":
    main()
