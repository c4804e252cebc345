"""What `compare` measured: a row for each clip, and the table of the accelerations as text, Markdown and JSON."""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from likeness import Likeness

MEANING = """Against the clip of the same prompt and seed under `none`, in 8-bit frames: PSNR in dB (inf: equal), SSIM of the luma (1: equal),
flicker (mean absolute difference of successive frames) and saturation (of HSV) as shares of those under `none`, so that below 1 is less
and above 1 is more. Each as mean / worst clip. Seconds are those of sampling, with the way of the experts to the GPU, without text
encoder and VAE."""
HEAD = ("acceleration", "clips", "model calls", "seconds", "of none's", "PSNR", "SSIM", "flicker", "saturation")


@dataclass(frozen=True)
class Row:
    """One clip, and how it differs from the one under `none`."""

    prompt: str
    acceleration: str
    seconds: float
    model_calls: int
    likeness: Likeness
    video: str

    def as_json(self) -> dict[str, Any]:
        return finite(asdict(self))

    @staticmethod
    def from_json(row: dict[str, Any]) -> "Row":
        alike = {name: math.inf if value is None else value for name, value in row["likeness"].items()}
        return Row(**{**{name: row[name] for name in Row.__dataclass_fields__}, "likeness": Likeness(**alike)})


@dataclass(frozen=True)
class Mark:
    """Mean and worst of a measure."""

    mean: float
    worst: float

    def text(self, digits: int) -> str:
        return f"{self.mean:.{digits}f} / {self.worst:.{digits}f}"


@dataclass(frozen=True)
class Summary:
    """All clips of one acceleration; `share` is its time by that of `none`."""

    acceleration: str
    clips: int
    model_calls: float
    seconds: Mark
    share: float
    psnr: Mark
    ssim: Mark
    flicker: Mark
    saturation: Mark

    def cells(self) -> list[str]:
        numbers = [f"{self.clips}", f"{self.model_calls:.4g}", self.seconds.text(1), f"{self.share:.2f}"]
        return [self.acceleration, *numbers, self.psnr.text(1), self.ssim.text(4), self.flicker.text(3), self.saturation.text(3)]


def summaries(rows: Sequence[Row], reference: str) -> list[Summary]:
    """One for each acceleration, in the order of the rows."""
    by_name = {name: [row for row in rows if row.acceleration == name] for name in dict.fromkeys(row.acceleration for row in rows)}
    seconds = sum(row.seconds for row in by_name[reference])
    return [summary(name, of_name, seconds) for name, of_name in by_name.items()]


def summary(name: str, rows: Sequence[Row], reference_seconds: float) -> Summary:
    calls, seconds = ([getattr(row, field) for row in rows] for field in ("model_calls", "seconds"))
    psnr, ssim, flicker, saturation = ([getattr(row.likeness, field) for row in rows] for field in Likeness.__dataclass_fields__)
    return Summary(name, len(rows), mean(calls), mark(seconds, max), sum(seconds) / reference_seconds, mark(psnr, min), mark(ssim, min),
                   mark(flicker, farthest), mark(saturation, farthest))


def mark(values: Sequence[float], worst: Callable[[Sequence[float]], float]) -> Mark:
    return Mark(mean(values), worst(values))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def farthest(values: Iterable[float]) -> float:
    """The share that is farthest from 1."""
    return max(values, key=lambda value: abs(value - 1))


def finite(value: Any) -> Any:
    """JSON has no infinity: null stands for the PSNR of equal clips."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table that is also read well as it is; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def summary_table(rows: Sequence[Row], reference: str) -> str:
    return table([HEAD, *(each.cells() for each in summaries(rows, reference))])


def clip_table(rows: Sequence[Row]) -> str:
    shown = [[row.acceleration, f"{row.model_calls}", f"{row.seconds:.1f}", f"{row.likeness.psnr:.1f}", f"{row.likeness.ssim:.4f}",
              f"{row.likeness.flicker:.3f}", f"{row.likeness.saturation:.3f}"] for row in rows]
    return table([("acceleration", "model calls", "seconds", "PSNR", "SSIM", "flicker", "saturation"), *shown])


def write_report(folder: Path, title: str, settings: dict[str, Any], rows: Sequence[Row], reference: str) -> None:
    """compare.md and compare.json in `folder`."""
    parts = [f"# {title}", summary_table(rows, reference), MEANING]
    for prompt in dict.fromkeys(row.prompt for row in rows):
        of_prompt = [row for row in rows if row.prompt == prompt]
        parts += [f"## {prompt}", f"[{of_prompt[0].video}](<{of_prompt[0].video}>)", clip_table(of_prompt)]
    (folder / "compare.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    by_acceleration = [finite(asdict(each)) for each in summaries(rows, reference)]
    content = {"settings": settings, "accelerations": by_acceleration, "clips": [row.as_json() for row in rows]}
    (folder / "compare.json").write_text(json.dumps(content, indent=1, allow_nan=False), encoding="utf-8")
