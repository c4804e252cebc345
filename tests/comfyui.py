"""A real ComfyUI server as a context manager: start it on a folder of its own, queue prompts, read what came out."""

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import websocket

ROOT = Path(__file__).resolve().parent.parent
COMFYUI = Path(os.environ.get("WAN22_COMFYUI", ROOT / ".dev" / "ComfyUI"))
PACK_FOLDER = "a_folder_of_another_name"
TEXT_EVENT = 3  # of ComfyUI's binary messages: text on a node
Prompt = dict[str, dict[str, Any]]
C = TypeVar("C", bound="ComfyUI")


class PromptRejected(Exception):
    """The server refused to queue the prompt; the text holds its validation errors."""


class PromptFailed(Exception):
    """A node raised; the text is its message."""


def prepare_base(base: Path, pack: Path = ROOT, models: Path | None = None) -> Path:
    """Lay out a ComfyUI base folder: `pack` linked into custom_nodes under a foreign name, `models` linked beside it."""
    for folder in ("custom_nodes", "input", "output", "temp", "user"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    link(pack, base / "custom_nodes" / PACK_FOLDER)
    if models is not None:
        link(models, base / "models")
    return base


def link(target: Path, place: Path) -> None:
    if place.is_symlink():
        place.unlink()
    if not place.exists():
        try:
            place.symlink_to(target, target_is_directory=True)
        except OSError:  # Windows without the right to make links
            shutil.copytree(target, place, ignore=shutil.ignore_patterns(".dev", ".git"))


def has_gpu() -> bool:
    import torch
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """Something of this machine that answers JSON at `port`, over https where an `authority` signed its certificate."""

    def __init__(self, authority: Path | None = None) -> None:
        self.authority, self.port = authority, 0
        self.trusted = ssl.create_default_context(cafile=str(authority)) if authority else None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}" if self.trusted is None else f"https://localhost:{self.port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60, context=self.trusted) as answer:
            return json.loads(answer.read() or b"null")

    def post(self, path: str, body: object = None) -> Any:
        request = urllib.request.Request(self.url + path, json.dumps(body or {}).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60, context=self.trusted) as answer:
            return json.loads(answer.read() or b"null")


class ComfyUI(Server):
    """`with ComfyUI(base) as server:` starts main.py on a free port and stops it at the end.

    `environment` is added to this process's own; `authority` signed its certificate where the arguments make it speak https.
    """

    def __init__(self, base: Path, *arguments: str, comfyui: Path = COMFYUI, cpu: bool = True, environment: dict[str, str] | None = None,
                 authority: Path | None = None) -> None:
        super().__init__(authority)
        self.base, self.comfyui, self.environment = base, comfyui, environment or {}
        self.arguments = [*arguments, *(["--cpu"] if cpu else [])]
        self.log_file = base / "server.log"
        self.client_id = "wan22-tests"

    def __enter__(self: C) -> C:
        self.port = free_port()
        self.start()
        return self

    def start(self) -> None:
        command = [sys.executable, str(self.comfyui / "main.py"), "--port", str(self.port), "--base-directory", str(self.base),
                   "--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:", *self.arguments]
        with self.log_file.open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=self.comfyui,
                                            env={**os.environ, **self.environment})
        try:
            self._wait_until_up()
        except BaseException:
            self.__exit__()
            raise

    def kill(self) -> None:
        """As a crash or the power button does it; `start` begins anew on the same folder and port."""
        self.process.kill()
        self.process.wait()

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        self.process.kill()

    def _wait_until_up(self, seconds: float = 300) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"ComfyUI stopped while starting:\n{self.log()[-3000:]}")
            with contextlib.suppress(OSError):
                self.get("/system_stats")
                return
            time.sleep(0.2)
        raise TimeoutError(f"ComfyUI was not up after {seconds} s:\n{self.log()[-3000:]}")

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def free(self, seconds: float = 300) -> None:
        """Ask to unload all models and to empty the cache until that is taken up, which is before any later prompt; needs the probe.

        One request may be lost: ComfyUI's worker sleeps for up to 1000 s without looking whether one came since it last looked.
        """
        end = time.monotonic() + seconds
        while True:
            self.post("/free", {"unload_models": True, "free_memory": True})
            for _ in range(10):
                if not self.get("/probe/requests"):
                    return
                time.sleep(0.05)
            if time.monotonic() > end:
                raise TimeoutError(f"ComfyUI did not take up /free within {seconds} s:\n{self.log()[-3000:]}")

    def object_info(self) -> dict[str, Any]:
        return self.get("/object_info")

    def queue(self, prompt: Prompt, workflow: object = None) -> str:
        """Queue an API-format prompt; PromptRejected with the validation errors."""
        extra = {"extra_pnginfo": {"workflow": workflow}} if workflow is not None else {}
        try:
            return self.post("/prompt", {"prompt": prompt, "client_id": self.client_id, "extra_data": extra})["prompt_id"]
        except urllib.error.HTTPError as error:
            raise PromptRejected(error.read().decode()) from error

    def wait(self, prompt_id: str, seconds: float = 300) -> dict[str, Any]:
        """The history entry of a finished prompt; PromptFailed with the node's message."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if entry := self.get(f"/history/{prompt_id}").get(prompt_id):
                for kind, message in entry["status"]["messages"]:
                    if kind == "execution_error":
                        raise PromptFailed(f"{message['node_type']}: {message['exception_message']}")
                return entry
            time.sleep(0.05)
        raise TimeoutError(f"prompt {prompt_id} was not done after {seconds} s:\n{self.log()[-3000:]}")

    def run(self, prompt: Prompt, workflow: object = None) -> dict[str, Any]:
        """Queue, wait, and return the outputs per node id."""
        return self.wait(self.queue(prompt, workflow))["outputs"]

    def saved_videos(self, outputs: dict[str, Any]) -> list[Path]:
        """Paths of the videos that the nodes of a finished prompt show; still pictures are none."""
        return [self.base / shown["type"] / shown["subfolder"] / shown["filename"]
                for output in outputs.values() if any(output.get("animated", [])) for shown in output["images"]]

    def events(self) -> Generator[tuple[str, dict[str, Any]], None, None]:
        """Messages of the websocket as (type, data), from the moment this is called; ends when the caller stops reading. Previews are left out."""
        connection = websocket.create_connection(f"ws://127.0.0.1:{self.port}/ws?clientId={self.client_id}", timeout=300)
        return self._read(connection)

    @staticmethod
    def _read(connection: websocket.WebSocket) -> Generator[tuple[str, dict[str, Any]], None, None]:
        with contextlib.closing(connection):
            while True:
                message = connection.recv()
                if isinstance(message, str):
                    event = json.loads(message)
                    yield event["type"], event["data"]
                elif int.from_bytes(message[:4], "big") == TEXT_EVENT:
                    end = 8 + int.from_bytes(message[4:8], "big")
                    yield "progress_text", {"node": message[8:end].decode(), "text": message[end:].decode()}


def import_comfyui(cpu: bool | None = None) -> None:
    """Make ComfyUI's own modules importable in this process, with or without a GPU; tests take one where WAN22_ON_CARD is set, in float32."""
    if str(COMFYUI) not in sys.path:
        sys.path.insert(0, str(COMFYUI))
        from comfy.cli_args import args
        args.cpu = "WAN22_ON_CARD" not in os.environ if cpu is None else cpu
        if cpu is None and not args.cpu:
            args.fp32_unet = args.fp32_vae = args.fp32_text_enc = args.force_fp32 = True
        importlib.import_module("utils.extra_config")  # before core's nodes.py puts comfy/utils.py in its way, as main.py does


def folder_table() -> dict[str, tuple[list[str], set[str]]]:
    """Where ComfyUI in this process looks for each kind of model, as it stands now."""
    import folder_paths
    return {kind: (list(places), set(extensions)) for kind, (places, extensions) in folder_paths.folder_names_and_paths.items()}


@contextlib.contextmanager
def folder_table_kept() -> Generator[Callable[[str, Path], None], None, None]:
    """Folders of models that are added meanwhile, with the function it gives or any other, are forgotten in the end."""
    import folder_paths
    before = folder_table()
    yield lambda kind, folder: folder_paths.add_model_folder_path(kind, str(folder), is_default=True)
    folder_paths.folder_names_and_paths.clear()
    folder_paths.folder_names_and_paths.update(before)
    folder_paths.filename_list_cache.clear()


def import_pack(cpu: bool | None = None) -> ModuleType:
    """The pack in this process, under a name that is not its folder's, with ComfyUI around it."""
    import_comfyui(cpu)
    if PACK_FOLDER not in sys.modules:
        spec = importlib.util.spec_from_file_location(PACK_FOLDER, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
        assert spec is not None and spec.loader is not None
        sys.modules[PACK_FOLDER] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[PACK_FOLDER]
