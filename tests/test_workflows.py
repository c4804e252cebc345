"""The shipped workflows fit the nodes they use."""

from pathlib import Path
from typing import Any

import pytest

import workflows
from comfyui import ComfyUI
from engine.model_files import DOWNLOADS

FILES = workflows.workflow_files()


def test_there_are_workflows() -> None:
    assert [path.stem for path in FILES] == ["expand_and_check", "text_to_video"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_node_exists_and_the_server_accepts_the_defaults(path: Path, server: ComfyUI, object_info: dict[str, Any]) -> None:
    prompt_id = server.queue(workflows.to_prompt(workflows.shipped(path.stem), object_info))
    server.post("/queue", {"delete": [prompt_id]})
    server.post("/interrupt")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_model_is_offered_for_download(path: Path) -> None:
    known = {(folder, name, url) for folder, files in DOWNLOADS.items() for name, url in files.items()}
    for node in workflows.shipped(path.stem)["nodes"]:
        offered = node["properties"].get("models", [])
        assert {(model["directory"], model["name"], model["url"]) for model in offered} <= known
        chosen = {value for value in node.get("widgets_values", []) if str(value).endswith(".safetensors")}
        assert chosen == {model["name"] for model in offered}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_off_by_default_is_off(path: Path, object_info: dict[str, Any]) -> None:
    prompt = workflows.to_prompt(workflows.shipped(path.stem), object_info)
    assert not any(node["inputs"].get("enabled") for node in prompt.values())
