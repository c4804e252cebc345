"""Peak memory of a stretch of a benchmark: what it adds to what the process held when it began, each contender in a process of its own."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
EVERY_TENSOR_RETURNS_ITS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**18)}  # else glibc keeps some freed blocks, and peaks scatter by a factor of 2


def in_own_process(*arguments: str) -> Any:
    """The JSON that this very script prints last when it is called with `arguments` added."""
    command = [sys.executable, *sys.argv, *arguments]
    output = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL, env={**os.environ, **EVERY_TENSOR_RETURNS_ITS_MEMORY})
    return json.loads(output.splitlines()[-1])


def alternating(contenders: Sequence[str], rounds: int, *arguments: str) -> dict[str, list[dict[str, float]]]:
    """What each contender measures in a process of its own, in every round, by name; every other round goes the other way, and each is printed."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in contenders if turn % 2 == 0 else reversed(contenders):
            runs[name].append(in_own_process("--contender", name, *arguments))
            print(f"round {turn + 1}, {name}: {runs[name][-1]}", flush=True)
    return runs


class PeakMemory:
    """Megabytes added between `PeakMemory()` and `megabytes()`: on the GPU if there is one, else in main memory."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated() / 2**20
        else:
            if CLEAR.exists():
                CLEAR.write_text("5")  # Linux: the high-water mark begins anew
            self.start = _resident_peak()

    def megabytes(self) -> float:
        peak = torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else _resident_peak()
        return peak - self.start


def _resident_peak() -> float:
    if STATUS.exists():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
