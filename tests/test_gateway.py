"""Two real ComfyUIs behind one gateway, in small: whatever dies, everyone gets the video that the seed decides. The long way: --gateway."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_weights
import videos
from api_servers import Gateway
from client_programs import called, client_environment, write_certificate
from comfyui import ROOT, link, prepare_base
from endpoint_client import Client
from hosted_contract import REQUESTS

SCRIPTS = ROOT / "tests" / "api" / "local" / "scripts"
QUICK = ROOT / "tests" / "api" / "local" / "quick_networks"
VIDEO = {"prompt": "a red circle moves to the left", "num_frames": 17, "num_inference_steps": 2, "resolution": "480p", "aspect_ratio": "1:1",
         "num_interpolated_frames": 0, "interpolator_model": "none", "acceleration": "none", "guidance_scale": 1, "guidance_scale_2": 1,
         "video_write_mode": "fast"}
Run = Callable[..., tuple[Any, list[str]]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def gateway(certificate: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    base = prepare_base(tmp_path_factory.mktemp("gateway"), models=models)
    link(QUICK, base / "custom_nodes" / "quick_networks")
    with Gateway(base, certificate=certificate) as running:
        yield running


@pytest.fixture(scope="module")
def run(gateway: Gateway, certificate: Path) -> Run:
    """Runs scripts/NAME.py with fal-client on requests: what its last line says, and the lines before it."""
    pytest.importorskip("fal_client", reason="fal-client is not installed")
    environment = client_environment(gateway, certificate)

    def program(script: str, *requests: dict[str, Any]) -> tuple[Any, list[str]]:
        return called([sys.executable, str(SCRIPTS / f"{script}.py"), *map(json.dumps, requests)], environment)

    return program


@pytest.fixture
def pixels(gateway: Gateway, tmp_path: Path) -> Callable[[dict[str, Any]], np.ndarray]:
    """Every other row and column of a result's video."""
    def of(result: dict[str, Any]) -> np.ndarray:
        video = result["video"]
        clip = Client(gateway).download(video["url"], tmp_path / video["file_name"])
        assert clip.stat().st_size == video["file_size"]
        return videos.pixels(clip)[:, ::2, ::2].astype(np.int16)

    return of


def differ(one: np.ndarray, other: np.ndarray) -> bool:
    """The encoder alone decides a little differently each time."""
    return one.shape != other.shape or bool(np.abs(one - other).mean() > 1)


def test_a_lora_is_named_as_its_worker_has_it(run: Run, pixels: Any) -> None:
    lora = {"path": tiny_weights.LORAS[0].format("high"), "transformer": "both", "scale": 4}
    plain, patched = (run("run", {**VIDEO, "seed": 5, "loras": loras})[0] for loras in ([], [lora]))
    assert differ(pixels(plain), pixels(patched))


def test_a_cancelled_job_leaves_its_worker_to_the_next(gateway: Gateway) -> None:
    client = Client(gateway)
    for seed in range(gateway.workers + 1):  # more than there are workers
        job = client.submit({**VIDEO, "seed": seed, "num_inference_steps": 40, "num_frames": 33})
        client.wait(job, until=("IN_PROGRESS",))
        assert client.call("PUT", f"{REQUESTS}/{job}/cancel").status == 202
        client.wait(job)
        assert client.result(job).body["error_type"] == "client_cancelled"
        assert gateway.jobs() == ([], [])


def test_a_killed_comfyui_costs_nobody_the_video_of_the_seed(request: pytest.FixtureRequest, gateway: Gateway, run: Run, pixels: Any) -> None:
    if not request.config.getoption("--gateway"):
        pytest.skip("half a minute: --gateway. ComfyUIs that only speak are killed in tests/cluster")
    with ThreadPoolExecutor(2) as clients:
        calls = [clients.submit(run, "subscribe", {**VIDEO, "seed": seed, "num_inference_steps": 4}) for seed in (1, 2)]
        while len(gateway.jobs()[0]) < gateway.workers:
            assert not all(call.done() for call in calls)
        os.kill(next(iter(gateway.comfyuis())), signal.SIGKILL)
        answers = [call.result() for call in calls]
    made = [pixels(result) for result, _ in answers]
    assert [result["seed"] for result, _ in answers] == [1, 2]
    assert any("Another one begins again" in line for _, lines in answers for line in lines)
    assert differ(made[0], made[1])
    lost = next(number for number, (_, lines) in enumerate(answers) if any("Another one begins again" in line for line in lines))
    assert not differ(made[lost], pixels(run("run", {**VIDEO, "seed": lost + 1, "num_inference_steps": 4})[0]))
