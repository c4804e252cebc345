"""The report of a run: one JSON, and its rows as a table for people."""

from typing import Any

FORMAT = 1
UNSAID = ("name", "row_seconds")


def of(machine: dict[str, Any], minutes: float, rehearsal: bool, stages: list[Any]) -> dict[str, Any]:
    return {"format": FORMAT, "machine": machine, "minutes": minutes, "rehearsal": rehearsal, "stages": stages}


def table(report: dict[str, Any]) -> str:
    """Markdown: a line for each row of each stage."""
    machine = report["machine"]
    lines = [f"{machine['card']}, {machine['memory_gib']} GiB, driver {machine['driver']}, PyTorch {machine['torch']}, Python {machine['python']}, "
             f"{machine['date']}" + (" (rehearsal: small shapes)" if report["rehearsal"] else "")]
    for stage in report["stages"]:
        took = f"{stage['seconds']:.0f} s of {stage['allowed_seconds']:.0f} s"
        lines += ["", f"**{stage['name']}**: {stage['ended']}, {took}", "", "| | |", "|---|---|"]
        lines += [f"| {row['name']} | {_text(row)} |" for row in stage["rows"]]
        lines += [f"\n```\n{stage['log']}\n```"] if stage["log"] else []
    return "\n".join(lines)


def _text(row: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_number(value)}" for key, value in row.items() if key not in UNSAID)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
