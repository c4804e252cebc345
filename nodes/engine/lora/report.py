"""What each LoRA did, in one line per file and expert."""

from collections.abc import Sequence

from .normal_form import NormalForm, Part
from .routing import Route


def describe(route: Route, form: NormalForm, part: Part) -> str:
    """File, family, rank, effective scale (strength * alpha / rank), tensors applied, and ignored keys by reason (I2V-only keys are silent)."""
    line = f"{route.expert}: {route.name} ({', '.join(sorted(part.families))})"
    if ranks := part.ranks():
        line += f", rank {_span(ranks)}, effective scale {_span([route.scale * scale for scale in part.scales()])}"
    else:
        line += f", full difference, scale {route.scale:g}"
    line += f", {part.tensor_count()} of {form.total} tensors applied" if route.scale else f", none of {form.total} tensors applied: scale is 0"
    for reason, keys in form.ignored.items():
        if reason != "I2V only":
            line += f"; {len(keys)} {reason} keys ignored (first: {keys[0]})"
    return line


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"
