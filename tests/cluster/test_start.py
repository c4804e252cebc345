"""What must be put right is named before a job is accepted; what was started ends whole; and nobody else gets in."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from program import FAKE, PATIENCE, RUN, Program, alive, doors, ending, family, folders, up, wait_for

from cluster.__main__ import main
from cluster.on_ray.actor import COMFYUI, PYTHON
from cluster.on_ray.head import Head, environment, make_token
from cluster.run_gateway import WRONG
from cluster.worker.child import free_port
from nodes.api.version import pack_version

LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
EVERYWHERE = "00000000"
ACTED = """
import json, os, runpy, sys
from pathlib import Path
act = json.loads(Path(__file__).with_name("act.json").read_text())
if "last_words" in act:
    sys.exit(act["last_words"])
os.environ.update(act)
runpy.run_path({fake!r}, run_name="__main__")
"""  # a ComfyUI that behaves as act.json beside it says
STRANGER = """
from ray._raylet import GcsClient
try:
    print("in", GcsClient(address={address!r}).internal_kv_keys(b"", b"cluster", timeout=30))
except BaseException as error:
    print("out", error)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start")


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[Program]:
    """A machine with one worker, whose gateway other machines reach."""
    program = up(place / "running", "--workers", "1", "--listen", "0.0.0.0")
    with ending(program):
        program.until("1 of 1 worker ready")
        yield program


@pytest.fixture(scope="module")
def ray(place: Path) -> Iterator[Head]:
    """Ray alone, whose one worker runs the ComfyUI that `acting` decides about."""
    folder = place / "ComfyUI"
    folder.mkdir()
    (folder / "main.py").write_text(ACTED.format(fake=str(FAKE / "main.py")))
    head = Head(1, make_token(place / "token"), {COMFYUI: str(folder), PYTHON: sys.executable})
    yield head
    head.stop()


def acting(place: Path, head: Head, *more: str, **act: str) -> Program:
    """A gateway on `head`, whose worker's ComfyUI acts so."""
    (place / "ComfyUI" / "act.json").write_text(json.dumps(act))
    return Program("gateway", f"--address={head.address}", f"--state={place / 'alone'}", *more, environment=environment(place / "token"))


def refused(program: Program, *words: str) -> None:
    """It ended as one that must not be started again before something is put right, and said what; no traceback is a sentence."""
    assert program.ended() == WRONG, program.words
    assert [word for word in words if word not in program.words] == [], program.words
    assert "Traceback" not in program.words


# --- before Ray starts -----------------------------------------------------------------------------------------------------------


Refused = Callable[..., str]


@pytest.fixture
def refuses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Why `python -m cluster up` with these arguments goes no further."""

    def why(*more: str, comfyui: Path = FAKE, python: str = sys.executable, port: int | None = None) -> str:
        monkeypatch.setattr(sys, "argv", ["cluster", "up", "--comfyui", str(comfyui), "--python", python, "--state", str(tmp_path / "state"),
                                          "--port", str(port or free_port()), *more])
        with pytest.raises(SystemExit) as end:  # argparse's, or as the program does it
            sys.exit(main())
        assert end.value.code == WRONG
        return capsys.readouterr().err

    return why


def test_a_dead_comfyui_and_a_dead_python_are_named(refuses: Refused, tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        why = refuses(comfyui=folder)
        assert str(folder) in why and "no main.py" in why and "--comfyui PATH" in why
    why = refuses(python=str(tmp_path / "python"))
    assert str(tmp_path / "python") in why and "--python PATH" in why


def test_the_state_is_for_its_owner_alone(refuses: Refused, tmp_path: Path) -> None:
    refuses(comfyui=tmp_path)
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0


def test_wrong_settings_are_named_entry_by_entry(refuses: Refused, tmp_path: Path) -> None:
    (tmp_path / "wrong.json").write_text('{"max_queued": 0, "keys": ["short"], "result": {}}')
    why = refuses("--settings", str(tmp_path / "wrong.json"))
    assert all(word in why for word in ("wrong.json", "max_queued", "keys.0", "result")) and "short" not in why
    assert "none.json" in refuses("--settings", str(tmp_path / "none.json"))


@pytest.mark.parametrize("number", ["0", "-1", "two", "1001"])
def test_workers_are_counted_from_one(refuses: Refused, number: str) -> None:
    why = refuses(f"--workers={number}")
    assert "--workers" in why and f"{number} is not a whole number from 1 to 1000" in why


def test_a_port_in_use_is_named(refuses: Refused) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        why = refuses(port=port)
    assert f"port {port}" in why and "--port NUMBER" in why
    assert "--port" in refuses("--port=70000")


def test_what_ray_says_is_said(tmp_path: Path) -> None:
    """A path that is too long for its sockets."""
    folder = tmp_path / ("long" * 25)
    folder.mkdir()
    refused(up(tmp_path / "state", "--workers", "1", environment={"TMPDIR": str(folder)}), "Ray did not start", "AF_UNIX")
    assert folders(folder) == set()


# --- beside a machine that runs --------------------------------------------------------------------------------------------------


def test_the_state_of_a_running_gateway_is_its_own(running: Program, place: Path) -> None:
    second = Program("gateway", f"--address={address(running)}", f"--state={place / 'running'}", "--workers", "1",
                     environment=environment(place / "running" / "ray_token"))
    refused(second, str(place / "running"), "--state")
    assert running.post(RUN, {"prompt": "it goes on"})[0] == 200


def test_the_gateways_door_alone_is_open(running: Program) -> None:
    ports = doors(family(running.process.pid))
    assert ports.pop(EVERYWHERE) == {running.port}
    assert set(ports) <= LOOPBACK and sum(map(len, ports.values())) >= 3, ports


def test_ray_lets_nobody_in_without_the_token(running: Program, place: Path, tmp_path: Path) -> None:
    """Neither one without any nor one with another: what runs on Ray runs as its user."""
    (tmp_path / "other").write_text("0" * 64)
    with_token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(place / "running" / "ray_token")}
    asks = {"right": with_token, "none": {"RAY_AUTH_MODE": "disabled"}, "other": {**with_token, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "other")}}
    answers = {}
    for name, more in asks.items():
        done = subprocess.run([sys.executable, "-c", STRANGER.format(address=address(running))], capture_output=True, text=True, timeout=PATIENCE,
                              env={**os.environ, **more})
        answers[name] = done.stdout
    assert answers["right"].startswith("in ")
    assert all(answers[name].startswith("out ") and "InvalidAuthToken" in answers[name] for name in ("none", "other")), answers
    assert (place / "running" / "ray_token").stat().st_mode & 0o077 == 0


def address(machine: Program) -> str:
    """Its Ray's."""
    (address,) = {argument.partition("=")[2] for process in family(machine.process.pid) for argument in arguments(process)
                  if argument.startswith("--address=127.0.0.1:")}
    return address


def arguments(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/cmdline").read_text().split("\0")
    except OSError:
        return []


# --- workers that cannot start ---------------------------------------------------------------------------------------------------


def test_without_a_gpu_the_number_of_workers_is_asked_for(ray: Head, place: Path) -> None:
    refused(acting(place, ray), "no GPU", "--workers N")


@pytest.mark.parametrize("act, words", [
    ({"last_words": "No module named torch"}, ["ended while it started", "No module named torch"]),
    ({"FAKE_LACKS_MODELS": "1"}, ["wan2.2_high.safetensors is missing"]),
    ({"FAKE_VERSION": "0.0.1+other"}, ["0.0.1+other", pack_version(), "the same commit"])], ids=["ends", "lacks models", "another pack"])
def test_a_worker_that_cannot_start_says_why(ray: Head, place: Path, act: dict[str, str], words: list[str]) -> None:
    refused(acting(place, ray, "--workers", "1", **act), "worker_1: ", *words)


def test_what_was_put_right_is_seen_by_the_next_gateway(ray: Head, place: Path) -> None:
    program = acting(place, ray, "--workers", "1")
    with ending(program):
        program.until("curl http://127.0.0.1:")
        assert program.post(RUN, {"prompt": "a fox"})[0] == 200


# --- the end ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_nothing_stays_behind(number: signal.Signals, place: Path, tmp_path: Path) -> None:
    """No process, and no folder but of one that was killed, which the next start removes."""
    folder = Path(tempfile.mkdtemp())  # pytest's names are too long for Ray's sockets
    program = up(tmp_path, "--workers", "1", environment={"TMPDIR": str(folder)})
    program.until("1 of 1 worker ready")
    members = family(program.process.pid)
    assert len(members) > 5
    program.process.send_signal(number)
    assert program.ended() == (0 if number != signal.SIGKILL else -number)
    wait_for(lambda: not alive(members), lambda: f"{alive(members)} of {members}")
    assert number == signal.SIGKILL or folders(folder) == set()
    shutil.rmtree(folder)
