"""The house keeps its floors: imports flow from the menu to the node files, to host, to the engine, and never back."""

import ast
from pathlib import Path

import pytest

from comfyui import ROOT

NODES = ROOT / "nodes"
FLOORS = {"node": {"host", "engine", "widgets", "sockets"}, "host": {"host", "engine"}, "engine": {"engine"}}
MODULES = sorted(path for path in NODES.rglob("*.py") if path.name != "__init__.py")


def floor(path: Path) -> str:
    top = path.relative_to(NODES).parts[0]
    return top if top in FLOORS else "node"


def imported_floors(path: Path) -> set[str]:
    """First package below `nodes` that each relative import of the module reaches."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    reached = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            package = path.relative_to(NODES).parts[:-1]
            target = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
            names = [part for part in target if part]
            reached |= {names[0]} if names else {alias.name for alias in node.names}
    return reached


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(NODES)))
def test_no_stair_leads_back_up(path: Path) -> None:
    assert imported_floors(path) <= FLOORS[floor(path)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(NODES)))
def test_files_stay_readable_on_every_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    text.encode("cp1252")
    assert text.count("\n") <= 300
