"""Run all stages, or those named with --only, and write one JSON; with --pack, write the folder to carry instead."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from comfyui import ROOT
from gpu import card, kit, report
from gpu.runner import Stage, run_all

MINUTES = 8.0
STAGES = (
    Stage("ceilings", "gpu.ceilings", 8),
    Stage("sampling fp8_scaled", "gpu.sampling", 185),
    Stage("sampling bf16", "gpu.sampling", 118),
    Stage("video", "gpu.video", 55),
    Stage("out of memory", "gpu.exhaustion", 50),
    Stage("precision", "gpu.halves", 13),
    Stage("tests", "gpu.suite", 68),
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python dev.py gpu", description=__doc__)
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="make the folder to carry to a machine without network, and stop")
    parser.add_argument("--rehearse", action="store_true", help="small shapes, also without a card")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--only", nargs="+", metavar="STAGE", choices=[stage.name for stage in STAGES])
    parser.add_argument("--json", type=Path, default=ROOT / ".dev" / "gpu.json")
    options = parser.parse_args()
    if options.pack:
        print(f"{options.pack}: {kit.pack(options.pack) / 1e6:.0f} MB. There: python {kit.PACK}/dev.py gpu")
        return 0
    machine = card.facts()
    if machine["card"] == "none" and not options.rehearse:
        sys.exit("PyTorch sees no card here. Try the kit itself with --rehearse.")
    chosen = [stage for stage in STAGES if not options.only or stage.name in options.only]
    options.json.parent.mkdir(parents=True, exist_ok=True)

    def write(reports: list[Any]) -> None:
        options.json.write_text(json.dumps(report.of(machine, options.minutes, options.rehearse, reports), indent=1) + "\n", encoding="utf-8")

    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--rehearse"] if options.rehearse else []
        reports = run_all(chosen, options.minutes * 60, Path(folder), arguments, write)
    print(report.table(report.of(machine, options.minutes, options.rehearse, reports)))
    print(f"written to {options.json}")
    return int(any(stage["ended"] != "done" for stage in reports))


if __name__ == "__main__":
    sys.exit(main())
