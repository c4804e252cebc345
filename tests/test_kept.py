"""Test processes share what lies in .dev: it is made once and seen whole, whoever asks first."""

import subprocess
import sys
from pathlib import Path

import pytest

from comfyui import ROOT
from kept import once

ASK = """
import sys, time
from pathlib import Path
from kept import once

def make(folder):
    with Path(sys.argv[1] + ".log").open("a") as log:
        log.write("made\\n")
    for part in range(20):
        time.sleep(0.01)  # so that the others come in between
        (folder / str(part)).touch()

sys.stdin.read()
assert len(list(once(Path(sys.argv[1]), make).iterdir())) == 20
"""


def test_processes_that_ask_together_get_one_whole_folder(tmp_path: Path) -> None:
    folder = tmp_path / "wheel-1.0.0"
    asking = [subprocess.Popen([sys.executable, "-c", ASK, str(folder)], cwd=ROOT / "tests", stdin=subprocess.PIPE) for _ in range(4)]
    for process in asking:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait(60) for process in asking] == [0, 0, 0, 0]
    assert Path(f"{folder}.log").read_text(encoding="utf-8").splitlines() == ["made"]


def test_what_could_not_be_made_is_made_the_next_time(tmp_path: Path) -> None:
    def breaks(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        once(tmp_path / "wheel", breaks)
    assert [path.name for path in once(tmp_path / "wheel", lambda folder: (folder / "whole").touch()).iterdir()] == ["whole"]
