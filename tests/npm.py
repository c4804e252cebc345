"""What tests run with node: packages from npm's registry, kept in .dev."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from comfyui import ROOT
from kept import once


def installed(name: str, *command: str, files: Sequence[Path] = ()) -> Path:
    """The folder .dev/node/`name` with copies of `files`, in which npm ran `command` once; skips the test where that cannot be done."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("node or npm is not installed")

    def install(folder: Path) -> None:
        for file in files:
            shutil.copy(file, folder)
        run = [npm, *command, "--prefix", str(folder.resolve()), "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(run, capture_output=True, text=True, timeout=180, check=False)
        if done.returncode:
            pytest.skip(f"npm {' '.join(command)} does not work here: {done.stderr[:300]}")

    return once(ROOT / ".dev" / "node" / name, install)
