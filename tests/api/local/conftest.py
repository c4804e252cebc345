"""The endpoint as its users meet it: a real ComfyUI behind TLS, or with --gateway two of them, and the hosted service's own clients as programs."""

import hashlib
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tiny_pretrained
import tiny_weights
from api_servers import ApiServer, Gateway, OneComfyUI
from client_programs import called, client_environment, write_certificate
from comfyui import import_comfyui, link, prepare_base
from endpoint_client import ALICE, BOB, MOST_WAITING, Customer
from npm import installed
from web_server import TOKEN, Web

HERE = Path(__file__).parent
SMALLEST = {"prompt": "a red circle moves to the left", "seed": 1, "num_frames": 17, "num_inference_steps": 2, "resolution": "480p",
            "aspect_ratio": "1:1", "num_interpolated_frames": 0, "interpolator_model": "none", "acceleration": "none",
            "guidance_scale": 1, "guidance_scale_2": 1, "video_write_mode": "fast", "video_quality": "low"}
PORTABLE_ATTENTION = "--use-pytorch-cross-attention"
PATIENCE = 300  # seconds: waiting is for an event, and a busy machine only takes longer
JAVASCRIPT_CLIENT = "@fal-ai/client@1.10.1"
OTHERS_CLIENTS = ("@ai-sdk/fal@3.0.41", "ai@7.0.173", "@tanstack/ai-fal@0.10.1", "@tanstack/ai@0.44.1", "@fal-ai/client@1.10.1", "zod@4.1.8",
                  "@hookflo/tern@4.1.0")  # other programs that speak with fal's queue, and one that verifies its webhooks
Arguments = dict[str, Any]
Program = Callable[..., Any]


@pytest.fixture(scope="session")
def web() -> Iterator[Web]:
    web = Web()
    yield web
    web.server.shutdown()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="session")
def endpoint_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import_comfyui()
    tiny_weights.write_models(models := tmp_path_factory.mktemp("models"))
    tiny_pretrained.write_language_model(models / "LLM" / "writer")
    tiny_pretrained.write_picture_classifier(models / "safety" / "watcher", strict=True)
    return models


@pytest.fixture(scope="session")
def new_base(endpoint_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Makes a ComfyUI folder with the pack, quick networks and tiny weights."""

    def make() -> Path:
        base = prepare_base(tmp_path_factory.mktemp("endpoint"), models=endpoint_models)
        link(HERE / "quick_networks", base / "custom_nodes" / "quick_networks")
        return base

    return make


@pytest.fixture(scope="session")
def endpoint(request: pytest.FixtureRequest, certificate: Path, new_base: Callable[[], Path]) -> Iterator[ApiServer]:
    """The API without keys, over https."""
    if request.config.getoption("--gateway"):
        with Gateway(new_base(), certificate=certificate) as gateway:
            yield gateway
        return
    tls = ["--tls-keyfile", str(certificate / "server.key"), "--tls-certfile", str(certificate / "server.pem")]
    with OneComfyUI(new_base(), PORTABLE_ATTENTION, *tls, environment={"WAN22_API": "1"}, authority=certificate / "authority.pem") as running:
        yield running


@pytest.fixture
def emptied(endpoint: ApiServer) -> Iterator[ApiServer]:
    """The endpoint, for tests that leave jobs behind: nothing waits or runs afterwards."""
    yield endpoint
    endpoint.end_all()


@pytest.fixture
def idle(emptied: ApiServer) -> Callable[[], bool]:
    """Waits until the server has nothing to do."""
    def becomes_idle() -> bool:
        end = time.monotonic() + PATIENCE
        while any(emptied.jobs()):
            assert time.monotonic() < end
            time.sleep(0.1)
        return True

    return becomes_idle


@pytest.fixture(scope="session")
def service(request: pytest.FixtureRequest, web: Web, new_base: Callable[[], Path]) -> Iterator[ApiServer]:
    """A server with two keys, few places, and downloads from this machine alone."""
    own = {"networks": ["127.0.0.0/8"], "plain_http": True}
    downloads = {**own, "enabled": True, "allowed_hosts": [web.host], "hub": f"http://{web.host}", "tokens": {"127.0.0.1": TOKEN}}
    webhooks = {**own, "pauses": [0.2] * 100}
    settings = {"enabled": True, "keys": [ALICE, BOB], "max_waiting": MOST_WAITING, "downloads": downloads, "webhooks": webhooks}
    base, is_gateway = new_base(), request.config.getoption("--gateway")
    if not is_gateway:
        (base / "user" / "__wan22").mkdir()
        (base / "user" / "__wan22" / "api.json").write_text(json.dumps(settings), encoding="utf-8")
    previews = ("--preview-method", "auto")
    with Gateway(base, settings, *previews) if is_gateway else OneComfyUI(base, PORTABLE_ATTENTION, *previews) as running:
        yield running


@pytest.fixture
def busy(service: ApiServer, long: Arguments) -> Callable[[Customer], list[str]]:
    """Has a customer's jobs run on everything that the server has, so that the next one waits; their ids."""

    def make(customer: Customer) -> list[str]:
        jobs = [customer.submit({**long, "seed": 10_000 + number}) for number in range(service.workers)]
        for job in jobs:
            customer.wait(job, until=("IN_PROGRESS",))
        return jobs

    return make


@pytest.fixture
def alice(service: ApiServer) -> Iterator[Customer]:
    yield from customer(service, ALICE)


@pytest.fixture
def bob(service: ApiServer) -> Iterator[Customer]:
    yield from customer(service, BOB)


def customer(service: ApiServer, key: str) -> Iterator[Customer]:
    made = Customer(service, key)
    yield made
    made.give_up()


@pytest.fixture(scope="session")
def environment(endpoint: ApiServer, certificate: Path) -> dict[str, str]:
    return client_environment(endpoint, certificate)


@pytest.fixture
def video(endpoint: ApiServer) -> Arguments:
    return SMALLEST


_seeds = itertools.count(100)


@pytest.fixture
def fresh() -> Arguments:
    """A request that ComfyUI has not cached."""
    return {**SMALLEST, "seed": next(_seeds)}


@pytest.fixture
def long() -> Arguments:
    """A request that runs for longer than a test looks at it."""
    return {**SMALLEST, "seed": next(_seeds), "num_inference_steps": 40, "num_frames": 33}


@pytest.fixture
def python(environment: dict[str, str]) -> Program:
    """Runs scripts/NAME.py on a request with fal-client; what its last line says, as JSON, and the lines before it."""
    pytest.importorskip("fal_client", reason="fal-client is not installed")

    def run(script: str, *arguments: Any) -> tuple[Any, list[str]]:
        return called([sys.executable, str(HERE / "scripts" / f"{script}.py"), *map(json.dumps, arguments)], environment)

    return run


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """A folder, kept in .dev, where node finds fal's JavaScript client."""
    return installed(JAVASCRIPT_CLIENT.rpartition("@")[2], "install", JAVASCRIPT_CLIENT)


@pytest.fixture(params=["proxy", "middleware"])
def javascript(request: pytest.FixtureRequest, environment: dict[str, str], node_modules: Path) -> Program:
    """Runs scripts/NAME.mjs with @fal-ai/client, which reaches the server in either of its two ways."""
    for script in (HERE / "scripts").glob("*.mjs"):
        shutil.copy(script, node_modules)  # modules are looked for beside the script, not where it is started

    def run(script: str, *arguments: Any) -> tuple[Any, list[str]]:
        return called(["node", str(node_modules / f"{script}.mjs"), *map(json.dumps, arguments)], {**environment, "WAY": request.param})

    return run


@pytest.fixture
def node(environment: dict[str, str]) -> Program:
    """Runs scripts/NAME.mjs with the packages of OTHERS_CLIENTS."""
    versions = hashlib.sha256(" ".join(OTHERS_CLIENTS).encode()).hexdigest()[:8]
    folder = installed(f"clients-{versions}", "install", "--legacy-peer-deps", *OTHERS_CLIENTS)

    def run(script: str, *arguments: Any) -> tuple[Any, list[str]]:
        shutil.copy(HERE / "scripts" / f"{script}.mjs", folder)
        return called(["node", str(folder / f"{script}.mjs"), *map(json.dumps, arguments)], environment)

    return run


@pytest.fixture
def curl(environment: dict[str, str]) -> Program:
    """`curl(method, path, body)`: the status and the JSON of the answer."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")

    def run(method: str, path: str, body: Arguments | None = None) -> tuple[int, Any]:
        url = path if path.startswith("https:") else environment["SERVER"] + path
        data = [] if body is None else ["--header", "Content-Type: application/json", "--data", json.dumps(body)]
        command = ["curl", "--silent", "--show-error", "--cacert", environment["AUTHORITY"], "--request", method, "--url", url,
                   "--header", "Authorization: Key any", *data, "--write-out", "\n%{http_code}"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        answer, _, status = done.stdout.rpartition("\n")
        return int(status), json.loads(answer)

    return run
