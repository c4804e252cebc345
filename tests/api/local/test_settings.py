"""Settings, and a server whose owner switched nothing on."""

import asyncio
import importlib
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyui import ComfyUI
from endpoint_client import Client
from hosted_contract import OPENAPI, PROXY, RUN, SUBMIT


def local(pack: Any, name: str) -> Any:
    return importlib.import_module(f"{pack.__name__}.nodes.api.local.{name}")


def a_file_for_a_folder(pack: Any, folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "requests").write_text("no folder")


def a_damaged_blueprint(pack: Any, folder: Path, patch: pytest.MonkeyPatch) -> None:
    blueprint = json.loads(local(pack, "service").BLUEPRINT.read_text(encoding="utf-8"))
    for node in blueprint["definitions"]["subgraphs"][0]["nodes"]:
        node["widgets_values"] = []
    (folder / "damaged.json").write_text(json.dumps(blueprint))
    patch.setattr(local(pack, "service"), "BLUEPRINT", folder / "damaged.json")


def a_fault_of_ours(pack: Any, folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(local(pack, "service"), "Blueprint", None)


def no_pydantic(pack: Any, folder: Path, patch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(f"{pack.__name__}.nodes.api.") and not name.endswith("registration")]:
        patch.delitem(sys.modules, name)
    patch.setitem(sys.modules, "pydantic", None)


@pytest.mark.parametrize("fault", [a_file_for_a_folder, a_damaged_blueprint, a_fault_of_ours, no_pydantic])
def test_whatever_is_wrong_costs_the_api_alone(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
                                               fault: Callable[[Any, Path, pytest.MonkeyPatch], None]) -> None:
    monkeypatch.setattr("folder_paths.get_system_user_directory", lambda name: str(tmp_path))
    (tmp_path / "api.json").write_text('{"enabled": true}')
    fault(pack, tmp_path, monkeypatch)
    with caplog.at_level(logging.WARNING):
        extension = asyncio.run(pack.comfy_entrypoint())
    assert "the API stays off" in caplog.text
    assert pack.Wan22Sampler in asyncio.run(extension.get_node_list())


@pytest.mark.parametrize(("value", "enabled"), [("1", True), ("True", True), (" on ", True), ("0", False), ("False", False), ("off", False),
                                                ("No", False), ("", True)])
def test_the_switch_in_the_environment_is_understood_however_it_is_written(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str,
                                                                           enabled: bool) -> None:
    monkeypatch.setattr("folder_paths.get_system_user_directory", lambda name: str(tmp_path))
    monkeypatch.setenv("WAN22_API", value)
    (tmp_path / "api.json").write_text('{"enabled": true}')
    assert local(pack, "registration").read_settings().enabled is enabled


@pytest.mark.parametrize("path", [RUN, SUBMIT, PROXY])
def test_without_being_switched_on_nothing_is_there(server: ComfyUI, path: str) -> None:
    assert Client(server).call("POST", path, {"prompt": "x"}).status in (404, 405)
    assert Client(server).call("GET", OPENAPI).status == 404


@pytest.mark.parametrize(("settings", "message"), [
    ({"enabled": True, "keys": ["short"]}, "keys.0: String should have at least 16 characters"), ({"enable": True}, "enable: Extra inputs"),
    ([], "api.json"), ({"enabled": True, "downloads": {"hub": "ftp://x"}}, "api.json")])
def test_wrong_settings_are_told_without_their_values_and_leave_the_pack_whole(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                               settings: Any, message: str) -> None:
    monkeypatch.setattr("folder_paths.get_system_user_directory", lambda name: str(tmp_path))
    (tmp_path / "api.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match="api.json") as refused:
        local(pack, "registration").read_settings()
    assert message in str(refused.value) and "short" not in str(refused.value).replace("shorter", "")


def test_what_is_missing_is_said_with_folder_and_link(pack: Any) -> None:
    choice = local(pack, "model_choice")
    models = choice.chosen_models(choice.Models(vae="absent.safetensors"))
    sentence = next(sentence for sentence in choice.missing_models(models) if "absent" in sentence)
    assert "models/vae" in sentence and "https://huggingface.co/" in sentence
