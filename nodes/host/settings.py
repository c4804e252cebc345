"""What the user set outside of workflows: the environment, a file that no page can read, and ComfyUI's settings."""

import json
import os
from pathlib import Path
from urllib.parse import urlsplit

import folder_paths

from ..engine.prompt.chat_server import LOCAL_URL, ChatServer

URL, MODEL = "Wan22.LLM.URL", "Wan22.LLM.Model"
SECRET_FILE = "llm.txt"
SECONDS = 180.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def chat_server() -> ChatServer:
    """The language model's server: of WAN22_LLM_URL, else of the file user/__wan22/llm.txt, else of ComfyUI's settings, else of OPENAI_BASE_URL, else
    Ollama on this machine.

    A key goes to no server but the one that was set beside it, or to this machine: whoever can open ComfyUI's page can change its settings.
    ValueError for a URL, or a number of seconds, that is none.
    """
    environment, settings = os.environ, comfyui_settings()
    url, key = environment.get("WAN22_LLM_URL", ""), environment.get("WAN22_LLM_KEY", "")
    if not url:
        url, key_of_file = _from_file()
        key = key_of_file if url else key
    if not url and (url := settings.get(URL, "")):
        key = key if urlsplit(url).hostname in LOOPBACK else ""
    if not url and (url := environment.get("OPENAI_BASE_URL", "")):
        key = environment.get("OPENAI_API_KEY", "")
    model = environment.get("WAN22_LLM_MODEL") or settings.get(MODEL, "")
    return ChatServer(url.strip() or LOCAL_URL, model.strip(), key.strip(), _seconds(environment.get("WAN22_LLM_SECONDS", "")))


def _seconds(text: str) -> float:
    try:
        return float(text or SECONDS)
    except ValueError as error:
        raise ValueError(f"WAN22_LLM_SECONDS is '{text}'; it must be a number of seconds.") from error


def comfyui_settings() -> dict[str, str]:
    """The default user's; ComfyUI does not tell nodes for which user they run."""
    try:
        path = Path(folder_paths.get_public_user_directory("default")) / "comfy.settings.json"
        return {name: value for name, value in json.loads(path.read_text(encoding="utf-8")).items() if isinstance(value, str)}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _from_file() -> tuple[str, str]:
    """URL and key in user/__wan22/llm.txt, with a space between; ComfyUI serves no folder of that form, unlike its settings."""
    path = Path(folder_paths.get_system_user_directory("wan22")) / SECRET_FILE
    try:
        url, _, key = path.read_text(encoding="utf-8-sig").strip().partition(" ")
    except FileNotFoundError:
        return "", ""
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}. It must be one line of text: a URL, a space, a key.") from error
    return url, key
