"""The card: what it is, how fast it multiplies and copies, and how to make it smaller than it is."""

import contextlib
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

GIB = 2**30
SIDE = 8192  # of the matrices, as large as the largest of a 14B expert


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def facts() -> dict[str, Any]:
    machine = {"python": platform.python_version(), "torch": torch.__version__, "system": platform.platform(), "date": time.strftime("%Y-%m-%d")}
    if not torch.cuda.is_available():
        return {**machine, "card": "none", "driver": "none", "memory_gib": 0.0}
    properties = torch.cuda.get_device_properties(0)
    return {**machine, "card": properties.name, "driver": _driver(), "memory_gib": round(properties.total_memory / GIB, 1)}


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip().splitlines()[0]


def median_seconds(run: Callable[[], object], times: int = 7) -> float:
    """On the device, after two runs to warm up."""
    for _ in range(2):
        run()
    taken = []
    for _ in range(times):
        begin = now()
        run()
        taken.append(now() - begin)
    return sorted(taken)[times // 2]


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def product_rate(side: int = SIDE, dtype: torch.dtype = torch.bfloat16) -> float:
    """Floating-point operations per second of a square product of random matrices: the ceiling that model FLOP utilisation is a part of."""
    first, second = (torch.randn(side, side, device=device(), dtype=dtype) for _ in range(2))
    return 2 * side**3 / median_seconds(lambda: first @ second)


def attention_rate(tokens: int, heads: int = 40) -> float:
    """The same of PyTorch's attention over that many tokens, 128 channels per head."""
    query, key, value = (torch.randn(1, heads, tokens, 128, device=device(), dtype=torch.bfloat16) for _ in range(3))
    seconds = median_seconds(lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value), 3)
    return 4 * tokens**2 * heads * 128 / seconds


def copy_rates(gib: float) -> dict[str, float]:
    """GiB/s of copies of `gib`: within the card (read plus written), and between main memory, pageable as weights rest there, and the card."""
    here = torch.empty(int(gib * GIB), dtype=torch.uint8, device=device()).fill_(1)
    other, outside = torch.empty_like(here), torch.ones(here.shape, dtype=torch.uint8)
    return {"within_card_gib_s": 2 * gib / median_seconds(lambda: other.copy_(here)),
            "to_card_gib_s": gib / median_seconds(lambda: here.copy_(outside), 3),
            "from_card_gib_s": gib / median_seconds(lambda: outside.copy_(here), 3)}


@contextlib.contextmanager
def limited_to(gib: float) -> Iterator[None]:
    """PyTorch raises its out-of-memory error beyond `gib`; ComfyUI does not know."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, gib * GIB / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@contextlib.contextmanager
def small_card(gib: float) -> Iterator[None]:
    """A card of `gib`: PyTorch gives no more, and ComfyUI sees no more."""
    import comfy.model_management as management
    real = management.get_free_memory
    hidden = torch.cuda.get_device_properties(0).total_memory - gib * GIB

    def free(asked: Any = None, torch_free_too: bool = False) -> Any:
        memory = real(asked, torch_free_too)
        if getattr(asked, "type", "cuda") == "cpu":
            return memory
        return (memory[0] - hidden, memory[1]) if torch_free_too else memory - hidden

    management.get_free_memory = free
    try:
        with limited_to(gib):
            yield
    finally:
        management.get_free_memory = real
