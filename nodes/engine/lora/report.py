"""What each LoRA did, in one line per file and expert."""

from collections.abc import Sequence

from ..spans import Span
from .normal_form import NormalForm, Part
from .routing import Route


def describe(route: Route, form: NormalForm, part: Part, span: Span) -> str:
    """File, family, rank, effective scale (strength * alpha / rank), steps of the run, tensors applied, ignored keys by reason, and what `auto`
    decided."""
    line = f"{route.expert}: {route.name} ({', '.join(sorted(part.families))}), {_content(part)}"
    if scales := part.scales():
        line += f", effective scale {_span([route.scale * scale for scale in scales])}"
    else:
        line += f", scale {route.scale:g}"
    if not span.is_whole:
        line += f", {span.describe()}"
    line += f", {part.tensor_count()} of {form.total} tensors applied" if route.scale else f", none of {form.total} tensors applied: scale is 0"
    for reason, keys in form.ignored.items():
        line += f"; {len(keys)} {reason} keys ignored (first: {keys[0]})"
    return f"{line}; {route.why}" if route.why else line


def _content(part: Part) -> str:
    """What kind of adapter it is, but for plain LoRA, and its rank."""
    kinds = [kind for kind in part.kinds() if kind != "LoRA"]
    if ranks := part.ranks():
        return f"{', '.join([*kinds, ''])}rank {_span(ranks)}"
    return f"{' and '.join(kinds)} without rank, so that alpha does not count" if kinds == ["LoKr"] else " and ".join(kinds) or "full difference"


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g}..{high:g}"
