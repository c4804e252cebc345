"""The cluster's own tests, which need Ray: run with the cluster's Python, in a process beside the others."""

import os
import subprocess

import pytest

from comfyui import ROOT

PYTHON = os.environ.get("WAN22_CLUSTER_PYTHON", "")
SECONDS = 1500.0
TESTS = "tests/cluster"


@pytest.fixture
def cluster_python() -> str:
    if not PYTHON:
        pytest.skip("WAN22_CLUSTER_PYTHON names no Python with Ray; `python dev.py test` does, but not on Windows")
    return PYTHON


@pytest.mark.timeout(SECONDS + 60)
def test_the_cluster(cluster_python: str) -> None:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_") and name not in ("PYTHONPATH", "WAN22_COMFYUI")}
    done = subprocess.run([cluster_python, "-m", "pytest", "-c", f"{TESTS}/pytest.ini", "--durations=10", TESTS], cwd=ROOT, env=others, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout
