"""What the user set outside of workflows: the environment, ComfyUI's settings, and a key file that no page can read."""

import json
import os
from pathlib import Path

import folder_paths

from ..engine.prompt.endpoint import LOCAL_URL, Endpoint

URL, MODEL = "Wan22.LLM.URL", "Wan22.LLM.Model"
KEY_FILE = "llm_key.txt"


def endpoint() -> Endpoint:
    """The language model's server: of WAN22_LLM_URL, else of ComfyUI's settings, else of OPENAI_BASE_URL, else Ollama on this machine.

    OPENAI_API_KEY goes to the server of OPENAI_BASE_URL alone. ValueError for a URL that is none.
    """
    environment, settings = os.environ, comfyui_settings()
    ours = environment.get("WAN22_LLM_URL") or settings.get(URL, "")
    openai = "" if ours else environment.get("OPENAI_BASE_URL", "")
    key = environment.get("WAN22_LLM_KEY") or _key_from_file() or (environment.get("OPENAI_API_KEY", "") if openai else "")
    return Endpoint(ours or openai or LOCAL_URL, environment.get("WAN22_LLM_MODEL") or settings.get(MODEL, ""), key)


def comfyui_settings() -> dict[str, str]:
    """The default user's; ComfyUI does not tell nodes for which user they run."""
    try:
        path = Path(folder_paths.get_public_user_directory("default")) / "comfy.settings.json"
        return {name: value for name, value in json.loads(path.read_text(encoding="utf-8")).items() if isinstance(value, str)}
    except (OSError, ValueError, TypeError):
        return {}


def _key_from_file() -> str:
    """user/__wan22/llm_key.txt: ComfyUI serves no folder of that form, while its settings are open to every page and go into error reports."""
    try:
        return (Path(folder_paths.get_system_user_directory("wan22")) / KEY_FILE).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
