"""What the cluster's ComfyUIs share where nobody names one: a base folder with this pack and the miniature, and the settings that name its files.

Started by `python dev.py cluster` with the gateway's state folder; prints the base folder.
"""

import json
import sys
from pathlib import Path

from comfyui import ROOT, prepare_base
from demo import miniature_models
from miniature import export

BASE = ROOT / ".dev" / "cluster-comfyui"


def main() -> None:
    settings = Path(sys.argv[1]) / "settings.json"
    if not settings.exists():
        settings.parent.mkdir(parents=True, exist_ok=True)
        settings.write_text(json.dumps({"models": models()}, indent=2) + "\n", encoding="utf-8")
    print(prepare_base(BASE, models=miniature_models()))


def models() -> dict[str, str]:
    """The miniature's files by the API's names."""
    return {"vae" if name == "vae_name" else name: file for name, file in export.FILES.items()}


if __name__ == "__main__":
    main()
