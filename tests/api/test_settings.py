"""Settings, and a server whose owner switched nothing on."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from comfyui import ComfyUI
from endpoint_client import Client
from hosted_contract import OPENAPI, PROXY, RUN, SUBMIT


def test_a_folder_that_cannot_be_used_costs_the_api_alone(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                          caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(pack.nodes.host.api.folder_paths, "get_system_user_directory", lambda name: str(tmp_path))
    (tmp_path / "api.json").write_text('{"enabled": true}')
    (tmp_path / "requests").write_text("no folder")
    with caplog.at_level(logging.ERROR):
        extension = asyncio.run(pack.comfy_entrypoint())
    assert "the API stays off" in caplog.text
    assert pack.Wan22Sampler in asyncio.run(extension.get_node_list())


@pytest.mark.parametrize(("value", "enabled"), [("1", True), ("True", True), (" on ", True), ("0", False), ("False", False), ("off", False),
                                                ("No", False), ("", True)])
def test_the_switch_in_the_environment_is_understood_however_it_is_written(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str,
                                                                           enabled: bool) -> None:
    monkeypatch.setattr(pack.nodes.host.api.folder_paths, "get_system_user_directory", lambda name: str(tmp_path))
    monkeypatch.setenv("WAN22_API", value)
    (tmp_path / "api.json").write_text('{"enabled": true}')
    assert pack.nodes.host.api.settings().enabled is enabled


@pytest.mark.parametrize("path", [RUN, SUBMIT, PROXY])
def test_without_being_switched_on_nothing_is_there(server: ComfyUI, path: str) -> None:
    assert Client(server).call("POST", path, {"prompt": "x"}).status in (404, 405)
    assert Client(server).call("GET", OPENAPI).status == 404


@pytest.mark.parametrize(("settings", "message"), [
    ({"enabled": True, "keys": ["short"]}, "keys.0: String should have at least 16 characters"), ({"enable": True}, "enable: Extra inputs"),
    ([], "api.json"), ({"enabled": True, "downloads": {"hub": "ftp://x"}}, "api.json")])
def test_wrong_settings_are_told_without_their_values_and_leave_the_pack_whole(pack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                               settings: Any, message: str) -> None:
    monkeypatch.setattr(pack.nodes.host.api.folder_paths, "get_system_user_directory", lambda name: str(tmp_path))
    (tmp_path / "api.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ValueError, match="api.json") as refused:
        pack.nodes.host.api.settings()
    assert message in str(refused.value) and "short" not in str(refused.value).replace("shorter", "")


def test_what_is_missing_is_said_with_folder_and_link(pack: Any) -> None:
    api = pack.nodes.host.api
    models = api.chosen_models(api.Models(vae="absent.safetensors"))
    sentence = next(sentence for sentence in api.missing_models(models) if "absent" in sentence)
    assert "models/vae" in sentence and "https://huggingface.co/" in sentence
