"""The folder to carry to a machine without network: the pack, ComfyUI and the packages that PyTorch's usual ones do not include."""

import shutil
import subprocess
import sys
from pathlib import Path

from comfyui import COMFYUI, ROOT

MOST_BYTES = 60_000_000
PACK, COMFYUI_FOLDER, WHEELS = "pack", "ComfyUI", "wheels"
PACKAGES = ("torchsde", "trampoline", "av", "ftfy", "wcwidth", "websocket-client", "filelock", "einops", "pydantic", "pydantic-core",
            "typing-inspection", "annotated-types", "sageattention")
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
LEFT_OUT = ("docs/*.png", "web/docs", "workflows/*.jpg", "tests/miniature/models")  # pictures and trained weights
COMFYUI_PARTS = ("comfy", "comfy_api", "comfy_execution", "comfy_config", "comfy_extras", "utils", "app", "api_server", "middleware",
                 "alembic_db", "*.py", "LICENSE")
OTHER_TOKENIZERS = ("llama_tokenizer", "qwen25_tokenizer", "ace_lyrics_tokenizer", "hydit_clip_tokenizer", "byt5_tokenizer", "t5_pile_tokenizer")


def pack(folder: Path) -> int:
    """Fill `folder`, which must not exist; returns its bytes. ValueError where they are more than can be carried."""
    folder.mkdir(parents=True)
    copy_pack(folder / PACK)
    copy_comfyui(folder / COMFYUI_FOLDER)
    fetch_wheels(folder / WHEELS)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > MOST_BYTES:
        raise ValueError(f"the kit has {size / 1e6:.0f} MB, at most {MOST_BYTES / 1e6:.0f} were meant. Leave more out in tests/gpu/kit.py.")
    return size


def copy_pack(folder: Path) -> None:
    """The files that git knows, as they are now."""
    listed = subprocess.check_output(["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True).splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not any(_below(Path(name), pattern) for pattern in LEFT_OUT):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def _below(path: Path, pattern: str) -> bool:
    return any(place.match(pattern) for place in (path, *path.parents))


def copy_comfyui(folder: Path) -> None:
    """Without its server's front end, models, tests and the tokenizers of other models."""
    ignored = shutil.ignore_patterns("__pycache__", *OTHER_TOKENIZERS)
    folder.mkdir()
    for pattern in COMFYUI_PARTS:
        for part in COMFYUI.glob(pattern):
            shutil.copytree(part, folder / part.name, ignore=ignored) if part.is_dir() else shutil.copyfile(part, folder / part.name)
    for empty in ("models", "custom_nodes", "input", "output"):
        (folder / empty).mkdir()
        (folder / empty / "put_files_here").touch()


def fetch_wheels(folder: Path) -> None:
    """For Python 3.12 on Linux."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    subprocess.check_call([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:",
                           "--python-version", "3.12", "--implementation", "cp", *platforms, "--dest", str(folder), *PACKAGES])
