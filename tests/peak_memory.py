"""Peak memory of a stretch of a benchmark: what it adds to what the process held when it began."""

import resource
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
