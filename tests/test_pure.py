"""What the cluster's gateway will stand on runs in a Python without ComfyUI, without torch, and without anything but its own packages."""

import subprocess
import sys
from pathlib import Path

from comfyui import ROOT
from kept import once

PACKAGES = ("aiohttp", "filelock", "pydantic")
ROOMS = (ROOT / "nodes" / "api", ROOT / "nodes" / "api" / "jobs", ROOT / "nodes" / "api" / "uploads", ROOT / "nodes" / "engine" / "fetch")
IMPORTS = """
import importlib, sys
sys.path[:0] = sys.argv[1:3]
for name in sys.argv[3:]:
    importlib.import_module(name)
print(sorted(name for name in sys.modules if name.startswith(("torch", "comfy", "folder_paths"))))
"""


def with_packages(folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(folder),
               "-c", str(ROOT / "tests" / "constraints.txt"), *PACKAGES]
    subprocess.check_call(command)


def test_the_pure_part_of_the_api_and_the_downloader_need_three_packages() -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for room in ROOMS for path in sorted(room.glob("*.py"))]
    assert "nodes.api.app" in modules and "nodes.engine.fetch.download" in modules
    packages = once(ROOT / ".dev" / "packages_of_the_api", with_packages)
    command = [sys.executable, "-I", "-S", "-c", IMPORTS, str(ROOT), str(packages), *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
