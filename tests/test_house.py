"""The house keeps its floors: imports flow from the menu to the node files, to host, to the engine, and never back (.importlinter)."""

import subprocess
import sys
from pathlib import Path

import pytest

from comfyui import ROOT

NODES = ROOT / "nodes"
MODULES = sorted(path for room in (NODES, ROOT / "cluster") for path in room.rglob("*.py") if path.name != "__init__.py")
MOST_FILES, MOST_LINES = 11, 300


def test_no_stair_leads_back_up() -> None:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rooms_stay_small() -> None:
    rooms = {folder: len(list(folder.glob("*.py"))) - 1 for folder in {path.parent for path in MODULES} - {NODES}}
    assert {folder: count for folder, count in rooms.items() if count > MOST_FILES} == {}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_stay_readable_on_every_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    text.encode("cp1252")
    assert text.count("\n") <= MOST_LINES
