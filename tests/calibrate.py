"""Measure the magnitude curves of a pair of experts for `acceleration: regular`, in one run; prints them as the table in magcache_tables.py.

    python dev.py --comfyui PATH calibrate --high HIGH --low LOW [--lora-high FILE --lora-low FILE]

File names are those ComfyUI lists. Without --comfyui, the miniature is measured.
"""

import argparse
import importlib

from comfyui import has_gpu, import_pack
from demo import MINIATURE_PROMPT
from miniature import scenes
from model_choice import add_models, add_run, choices, find_models, with_lora

PROMPT = "A red fox trots along a snowy forest path at dawn, the camera tracks sideways."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_models(parser)
    add_run(parser, steps=40, shift=12.0, guidance=(4.0, 3.0))
    parser.add_argument("--prompt", help="default: a fox in the snow, or for the miniature a red circle")
    options = choices(parser)
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


if __name__ == "__main__":
    main()
