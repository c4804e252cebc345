"""Distil the exported miniature into a LoRA pair for four steps without guidance, in twenty minutes on 2 CPU cores, and export the pair.

    python dev.py miniature distil [--to FOLDER]

Stop it when you like; it goes on where it was. Trajectories, checkpoints and loss curves lie in .dev/miniature. Then `miniature motion` measures
what the pair takes from the clips.
"""

import argparse
import os
import sys
from pathlib import Path

from comfyui import import_comfyui
from miniature import export, train
from miniature.recipe import DISTILLED, RECIPES


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=export.MODELS, help="a models folder")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.set_defaults(recipe="full", minutes=[])
    options = parser.parse_args()
    if code := train.conduct(train.DISTILLATION, options, minutes={}):
        return code
    import_comfyui()
    for path in export.written(export.lora_files(RECIPES[options.recipe], DISTILLED), options.to):
        print(f"{path.stat().st_size / 2**10:.0f} kB  {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
