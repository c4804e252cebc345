"""Run each stage in a process of its own, with a share of the time, so that no stage's end is another's."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRACE = 0.05  # of its time: for a stage to write its last row


@dataclass(frozen=True)
class Stage:
    """A module of this package with a function `main`, and how much of the time it gets, relative to the others."""

    name: str
    module: str
    share: float


def seconds_for(stages: Sequence[Stage], index: int, left: float) -> float:
    """What a stage may take of the `left` seconds: its share among those that are still to come, so that time saved goes to the rest."""
    return left * stages[index].share / sum(stage.share for stage in stages[index:])


def run_all(stages: Sequence[Stage], seconds: float, folder: Path, arguments: Sequence[str], done: Callable[[list[Any]], None]) -> list[Any]:
    """The report of every stage; `done` is told after each, so that nothing is lost when this process is ended."""
    ends, reports = time.monotonic() + seconds, []
    for index, stage in enumerate(stages):
        allowed = seconds_for(stages, index, ends - time.monotonic())
        print(f"\n== {stage.name}: at most {allowed:.0f} s", flush=True)
        reports.append(run(stage, allowed, folder, arguments))
        done(reports)
    return reports


def run(stage: Stage, allowed: float, folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """What became of one stage: its rows, how it ended, how long it took."""
    rows, log = folder / f"{stage.name}.jsonl", folder / f"{stage.name}.log"
    rows.write_text("", encoding="utf-8")
    command = [sys.executable, "-m", stage.module, stage.name, "--rows", str(rows), "--ends", str(time.time() + allowed * (1 - GRACE)), *arguments]
    begin = time.monotonic()
    ended = _ended(command, allowed, log)
    taken = time.monotonic() - begin
    print(f"{ended} after {taken:.0f} s", flush=True)
    return {"name": stage.name, "ended": ended, "allowed_seconds": round(allowed, 1), "seconds": round(taken, 1),
            "rows": [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()],
            "log": "" if ended == "done" else log.read_text(encoding="utf-8", errors="replace")[-2000:]}


def _ended(command: Sequence[str], allowed: float, log: Path) -> str:
    with log.open("w", encoding="utf-8") as written:
        process = subprocess.Popen(command, stdout=written, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code = process.wait(allowed)
        except subprocess.TimeoutExpired:
            return "out of time"
        finally:
            _end(process)
    return "done" if code == 0 else f"failed with {code}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The stage and whatever it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
