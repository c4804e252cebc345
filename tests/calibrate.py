"""Measure for a pair of experts how well `acceleration` would forecast their velocities, in one run that computes every step.

    python dev.py --comfyui PATH calibrate --high HIGH --low LOW [--lora-high FILE --lora-low FILE] [--save]

Prints, for each step of each expert, the relative error of a forecast from the steps before it, held and along half the trend, and proposes settings.
--save writes them beside the experts' files, where Wan 2.2 Expert Loader finds them; delete NAME.forecast.json to go back to the pack's own. File
names are those ComfyUI lists. Without --comfyui, the miniature is measured.
"""

import argparse
import importlib
import json
from dataclasses import asdict

from comfyui import has_gpu, import_pack
from demo import MINIATURE_PROMPT
from miniature import scenes
from model_choice import add_models, add_run, choices, find_models, with_lora

PROMPT = "A red fox trots along a snowy forest path at dawn, the camera tracks sideways."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_models(parser)
    add_run(parser, steps=27, shift=5.0, guidance=(3.5, 4.0))
    parser.add_argument("--prompt", help="default: a fox in the snow, or for the miniature a red circle")
    parser.add_argument("--save", action="store_true", help="write NAME.forecast.json beside each expert's file")
    options = choices(parser)
    pack = import_pack(cpu=not has_gpu())
    print(f"{options.high}, {options.low}: {options.steps} UniPC steps, shift {options.shift}, guidance {options.guidance}")
    for high, calibration in measure(pack, options).items():
        print(f"\n{'high' if high else 'low'}-noise expert\n{'t':>6}{'held':>9}{'half':>9}{'best trend':>12}")
        for error in (error for error in calibration.errors if error.ahead == 1):
            print(f"{error.t:>6.0f}{error.held:>9.4f}{error.half:>9.4f}{error.best_trend:>12.2f}")
        print(f"proposed: {json.dumps(asdict(calibration.settings))}")
        if options.save:
            print(f"written to {save(pack, options.high if high else options.low, calibration.settings)}")


def save(pack, name: str, settings):
    models = pack.nodes.host.models
    path = models.forecast_files.settings_file(models.files.model_path("diffusion_models", name))
    path.write_text(json.dumps(asdict(settings)) + "\n", encoding="utf-8")
    return path


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
