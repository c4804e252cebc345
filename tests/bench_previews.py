"""What the moving preview of a clip costs, at the sizes of real runs: the solver's own time per step, and the thread's beside it.

    python dev.py bench previews [--steps 27]

Latents between noise and picture, as they come while a clip is made, by core's colour factors. Milliseconds are medians, kB those of the message; a
step of the 14B experts takes 6 s at 832x480x81 on an H200 (docs/gpu.md). Steps follow each other as fast as they can, so most pictures are dropped.
"""

import argparse
import importlib
import statistics
import time

import torch

from comfyui import has_gpu, import_pack

CLIPS = ((832, 480, 17), (832, 480, 81), (1280, 720, 81), (1280, 720, 161))


class Viewer:
    """Takes the pictures and keeps their sizes, in kB."""

    def __init__(self) -> None:
        self.sizes: list[float] = []

    def show(self, picture: str) -> None:
        self.sizes.append(len(picture) / 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=27)
    steps = parser.parse_args().steps
    pack = import_pack(cpu=not has_gpu())
    previews = importlib.import_module(f"{pack.__name__}.nodes.host.sampling.previews")
    import comfy.latent_formats
    import latent_preview
    wan = comfy.latent_formats.Wan21()
    colours = previews.colours_of(latent_preview.Latent2RGBPreviewer(wan.latent_rgb_factors, wan.latent_rgb_factors_bias))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print("| clip | in the solver's thread, ms a step | encoding beside it, ms | kB, mean / most | shown of steps |\n|---|---|---|---|---|")
    for width, height, frames in CLIPS:
        latents = [latent.to(device) for latent in denoised(width, height, frames, steps)]
        viewer = Viewer()
        screen, seconds, encoding = previews.Screen(viewer), [], []
        for latent in latents:
            begin = time.perf_counter()
            screen.show(colours(latent), frames / 16)
            seconds.append(time.perf_counter() - begin)
        screen.close()
        for latent in latents[::9]:
            clip = colours(latent)
            begin = time.perf_counter()
            previews.moving_picture(clip, frames / 16)
            encoding.append(time.perf_counter() - begin)
        print(f"| {width}x{height}x{frames} | {1000 * statistics.median(seconds):.1f} | {1000 * statistics.median(encoding):.0f} "
              f"| {statistics.mean(viewer.sizes):.0f} / {max(viewer.sizes):.0f} | {screen.shown} of {steps} |", flush=True)


def denoised(width: int, height: int, frames: int, steps: int) -> list[torch.Tensor]:
    """Latents (1, 16, T, H/8, W/8), one a step: a smooth picture that moves, with less and less noise on it."""
    shape = (1, 16, (frames - 1) // 4 + 1, height // 8, width // 8)
    smooth = torch.nn.functional.interpolate(torch.randn(1, 16, 4, 5, 8, generator=torch.manual_seed(1)), shape[2:], mode="trilinear")
    noise = torch.randn(shape, generator=torch.manual_seed(2))
    return [smooth + (1 - step / steps) * noise for step in range(steps)]


if __name__ == "__main__":
    main()
