"""What a stage is given: real or small shapes, an end, and a file for its rows."""

import argparse
import gc
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """`ends` counts like time.time(). Rows are written as they come, so that a stage that is ended early keeps what it has."""

    stage: str
    rows: Path
    ends: float
    rehearsal: bool

    def left(self) -> float:
        return self.ends - time.time()

    def attempt(self, name: str, measure: Callable[[], Row], needs: float = 0) -> Row:
        """Write one row; neither its failure nor its want of time, `needs` in seconds, hurts the rows after it."""
        if needs and self.left() < needs:
            return self.write(name, {"skipped": f"needs about {needs:.0f} s, {max(0, self.left()):.0f} s are left"})
        begin = time.monotonic()
        try:
            numbers = measure()
        except Exception as error:
            logging.exception("%s", name)
            numbers = {"failed": f"{type(error).__name__}: {error}"[:500]}
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return self.write(name, {**numbers, "row_seconds": round(time.monotonic() - begin, 2)})

    def write(self, name: str, numbers: Row) -> Row:
        row = {"name": name, **{key: round(value, 6) if isinstance(value, float) else value for key, value in numbers.items()}}
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        return row


def task_of_this_process() -> Task:
    """From the arguments that the runner gives a stage."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--ends", type=float, required=True)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    return Task(options.stage, options.rows, options.ends, options.rehearse)
