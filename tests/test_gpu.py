"""The kit for a card keeps its time, loses nothing to a stage that fails, and writes one report."""

import json
import time
from pathlib import Path

import pytest

from gpu import report
from gpu.__main__ import MINUTES, STAGES
from gpu.kit import LEFT_OUT, _below
from gpu.runner import Stage, run_all, seconds_for
from gpu.sampling import Case, cases, operations
from gpu.task import Task

SAYS = 'import json, sys\nrows = sys.argv[sys.argv.index("--rows") + 1]\nopen(rows, "a").write(json.dumps({{"name": "{name}"}}) + "\\n")\n{then}\n'


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    """One that fails, one that never ends and has a child that never ends, one that works."""
    thens = {"raises": "raise SystemExit(3)", "hangs": 'import subprocess, time\nsubprocess.Popen(["sleep", "60"])\ntime.sleep(60)', "works": ""}
    for name, then in thens.items():
        (tmp_path / f"stage_{name}.py").write_text(SAYS.format(name=name, then=then), encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return [Stage(name, f"stage_{name}", 1) for name in thens]


def test_no_stage_hurts_the_next(stages: list[Stage], tmp_path: Path) -> None:
    counts: list[int] = []
    begin = time.monotonic()
    reports = run_all(stages, 2.4, tmp_path, [], lambda so_far: counts.append(len(so_far)))
    assert time.monotonic() - begin < 3
    assert [stage["ended"] for stage in reports] == ["failed with 3", "out of time", "done"]
    assert [stage["rows"] for stage in reports] == [[{"name": "raises"}], [{"name": "hangs"}], [{"name": "works"}]]
    assert counts == [1, 2, 3]


def test_the_report_is_one_json_and_its_table_names_every_row(stages: list[Stage], tmp_path: Path) -> None:
    machine = {"card": "a card", "memory_gib": 80.0, "driver": "1", "torch": "2", "python": "3", "date": "today"}
    made = json.loads(json.dumps(report.of(machine, 8.0, True, run_all(stages[2:], 2, tmp_path, [], lambda _: None))))
    assert set(made) == {"format", "machine", "minutes", "rehearsal", "stages"}
    assert {"name", "ended", "allowed_seconds", "seconds", "rows", "log"} == set(made["stages"][0])
    assert all(word in report.table(made) for word in ("a card", "rehearsal", "works"))


def test_time_that_one_stage_saves_goes_to_the_others() -> None:
    two = [Stage("first", "", 3), Stage("second", "", 1)]
    assert seconds_for(two, 0, 100) == 75
    assert seconds_for(two, 1, 90) == 90
    assert MINUTES <= 8 and len({stage.name for stage in STAGES}) == len(STAGES)


def test_a_row_that_fails_or_finds_no_time_costs_no_other_row(tmp_path: Path) -> None:
    task = Task("stage", tmp_path / "rows", time.time() + 10, rehearsal=True)
    task.attempt("fails", lambda: {"share": 1 / 0})
    task.attempt("too long", lambda: {}, needs=60)
    task.attempt("works", lambda: {"share": 0.5})
    fails, late, works = map(json.loads, task.rows.read_text(encoding="utf-8").splitlines())
    assert fails["failed"] == "ZeroDivisionError: division by zero"
    assert late["skipped"].startswith("needs about 60 s")
    assert works["share"] == 0.5


def test_operations_are_those_of_the_14b_expert() -> None:
    """Two per weight and token for the linear layers, and attention, which grows with the square."""
    shape = {"dim": 5120, "ffn_dim": 13824, "num_layers": 40}
    assert Case("ours", 832, 480, 81, 3).tokens == 32760
    assert operations(32760, **shape) == pytest.approx(1.68e15, rel=0.02)
    assert operations(75600, **shape) == pytest.approx(6.5e15, rel=0.02)


def test_every_case_has_one_name() -> None:
    for dtype in ("fp8_scaled", "bfloat16"):
        names = [case.name for case in cases(dtype)]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize(("name", "carried"), [("docs/memory.md", True), ("docs/contact_sheet.png", False), ("tests/gpu/kit.py", True),
                                               ("tests/miniature/models/vae/a.safetensors", False), ("web/docs/Wan22Decode.md", False)])
def test_pictures_and_trained_weights_stay_here(name: str, carried: bool) -> None:
    assert any(_below(Path(name), pattern) for pattern in LEFT_OUT) is not carried
