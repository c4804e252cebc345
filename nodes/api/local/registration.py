"""The API's addresses on ComfyUI's server, where the owner switched them on. Whatever is wrong with the API, the pack's nodes are there."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths

from ...engine.log import log
from ...host import routes

if TYPE_CHECKING:
    from ..settings import Settings

SETTINGS_FILE = "api.json"
NO_PYDANTIC = "the API stays off: the package %s is missing. Install it with ComfyUI's Python."


def register() -> None:
    """Answer the API's addresses, and say in the log what is missing for it."""
    try:
        _register()
    except ModuleNotFoundError as error:
        log.warning(NO_PYDANTIC, error.name)
    except Exception as error:  # noqa: BLE001 the nodes need no API
        log.error("the API stays off: %s", error, exc_info=None if isinstance(error, (OSError, ValueError)) else error)


def _register() -> None:
    from ..app import App, answered_paths
    from ..contract import ENDPOINT
    from .model_choice import chosen_models, missing_interpolators, missing_models
    from .service import LocalService
    settings = read_settings()
    if not settings.enabled:
        return
    app = App(settings, LocalService(settings))
    for path in answered_paths():
        routes.serve("*", path, app.answer)
    log.info("API: POST /%s, for %s", ENDPOINT, "who sends a key" if settings.keys else "programs on this machine")
    for sentence in [*missing_models(chosen_models(settings.models)), *missing_interpolators()]:
        log.warning("API: %s", sentence)


def read_settings() -> "Settings":
    """Of user/__wan22/api.json, which no page can read; WAN22_API=1 switches the API on, any other value off, WAN22_API_KEY adds a key.

    ValueError for a file that is not as it must be.
    """
    from ..settings import Settings
    path = Path(folder_paths.get_system_user_directory("wan22")) / SETTINGS_FILE
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
        if switch := os.environ.get("WAN22_API", ""):
            entries["enabled"] = switch.strip().lower() in ("1", "true", "yes", "on")
        if key := os.environ.get("WAN22_API_KEY", ""):
            entries["keys"] = [*entries.get("keys", []), key]
        return Settings.read(json.dumps(entries))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
