"""The shipped workflows and the blueprint fit the nodes they use, and run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wan22.api.blueprint import Blueprint

import videos
import workflows
from comfyui import ROOT, ComfyUI, Prompt
from engine.model_files import DOWNLOADS
from hosted_contract import DEFAULTS

FILES = workflows.workflow_files()
BLUEPRINT = ROOT / "subgraphs" / "Wan 2.2 Text to Video.json"
WIDGETS = {"prompt": "", **{name: value for name, value in DEFAULTS.items() if name != "loras"}, "seed": 0}  # `loras` is a socket
SMALL: dict[str, Any] = {"resolution": "custom", "width": 64, "height": 64, "num_frames": 17, "length": 17, "steps": 2, "enabled": True,
         "when_unsafe": "blur"}
FILM_RUNS = "text_to_video"
RUN_BY_THE_MINIATURE = "draft_then_refine"  # tests/miniature/test_draft_then_refine.py
FEW: dict[str, Any] = {"num_frames": 5}  # for FILM, which takes twenty times as long as RIFE
ONE_AND_ONE: dict[str, Any] = {"model": "rife", "opening_steps": 1, "first_step": 2}  # of two steps one is the high-noise expert's
CHANGES = {FILM_RUNS: FEW, "lightning_with_motion": ONE_AND_ONE}
FRAMES = {"core_template_mix": 17, "modular": 17, FILM_RUNS: 9}  # the first two do not interpolate


def test_there_are_workflows() -> None:
    assert [path.stem for path in FILES] == ["core_template_mix", "draft_then_refine", "expand_and_check", "full", "lightning_4_steps",
                                             "lightning_with_motion", "lora_pair", "modular", "text_to_video"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_model_is_offered_for_download(path: Path) -> None:
    assert_models_are_offered(workflows.shipped(path.stem)["nodes"])


def assert_models_are_offered(nodes: list[dict[str, Any]]) -> None:
    downloads = {(folder, name, url) for folder, files in DOWNLOADS.items() for name, url in files.items()}
    for node in nodes:
        offered = node["properties"].get("models", [])
        assert {(model["directory"], model["name"], model["url"]) for model in offered} <= downloads
        chosen = {value for value in node.get("widgets_values", []) if str(value).endswith(".safetensors")}
        assert chosen <= {model["name"] for model in offered}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_widget_names_every_file_that_is_offered(path: Path) -> None:
    """The front end lists no other: of a pair, one widget names each file."""
    nodes = workflows.shipped(path.stem)["nodes"]
    named = {value for node in nodes if node["type"] not in workflows.DRAWN_ONLY for value in node.get("widgets_values") or []}
    assert offered_models(nodes) - named == set()


def offered_models(nodes: list[dict[str, Any]]) -> set[str]:
    return {model["name"] for node in nodes for model in node["properties"].get("models", [])}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_node_says_where_it_comes_from(path: Path) -> None:
    for node in workflows.shipped(path.stem)["nodes"]:
        if node["type"] not in workflows.DRAWN_ONLY:
            assert node["properties"]["cnr_id"] == ("wan22-lora-video" if node["type"].startswith("Wan22") else "comfy-core")
            assert node["properties"]["ver"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_off_by_default_is_off(path: Path, object_info: dict[str, Any]) -> None:
    prompt = workflows.to_prompt(workflows.shipped(path.stem), object_info)
    assert not any(node["inputs"].get("enabled") for node in prompt.values())


@pytest.fixture(scope="module")
def exit_statuses(server: ComfyUI, object_info: dict[str, Any], helper_models: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What comfy-cli's `workflow validate` ends with for every workflow, whole and with an input taken out, and for the blueprint: in one process."""
    folder = tmp_path_factory.mktemp("prompts")
    info = folder / "object_info.json"
    info.write_text(json.dumps(server.object_info()), encoding="utf-8")  # with the helpers among the choices
    prompts = {"blueprint": Blueprint.read(BLUEPRINT).prompt({}, [], 0, "video/Wan22")}
    for path in FILES:
        prompts[path.stem] = workflows.to_prompt(workflows.unmuted(workflows.shipped(path.stem)), object_info)
        prompts[f"{path.stem} without its width"] = without_width(prompts[path.stem])
    commands = []
    for name, prompt in prompts.items():
        (folder / f"{name}.json").write_text(json.dumps(prompt), encoding="utf-8")
        commands.append(["--skip-prompt", "--no-enable-telemetry", "workflow", "validate", "--workflow", str(folder / f"{name}.json"),
                         "--input", str(info)])
    run = ("import json, sys; from typer.testing import CliRunner; from comfy_cli.cmdline import app; "
           "print(json.dumps([CliRunner().invoke(app, command).exit_code for command in json.load(sys.stdin)]))")
    output = subprocess.run([sys.executable, "-c", run], input=json.dumps(commands), capture_output=True, text=True, check=True).stdout
    return dict(zip(prompts, json.loads(output.splitlines()[-1]), strict=True))


def without_width(prompt: Prompt) -> Prompt:
    broken = json.loads(json.dumps(prompt))
    del next(node for node in broken.values() if node["class_type"] == "Wan22EmptyLatent" or "length" in node["inputs"])["inputs"]["width"]
    return broken


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_comfy_workflow_validate_finds_nothing_wrong(path: Path, exit_statuses: dict[str, int]) -> None:
    assert exit_statuses[path.stem] == 0
    assert exit_statuses[f"{path.stem} without its width"] != 0


def test_comfy_workflow_validate_takes_the_blueprint_as_a_prompt(exit_statuses: dict[str, int]) -> None:
    assert exit_statuses["blueprint"] == 0


@pytest.mark.parametrize("path", [path for path in FILES if path.stem != RUN_BY_THE_MINIATURE], ids=lambda path: path.stem)
def test_every_workflow_runs_with_everything_in_it_switched_on(path: Path, server: ComfyUI, object_info: dict[str, Any], helper_models: None) -> None:
    prompt = workflows.to_prompt(workflows.unmuted(workflows.shipped(path.stem)), object_info)
    changes = SMALL | CHANGES.get(path.stem, {"model": "rife"})
    for node in prompt.values():
        node["inputs"].update({name: value for name, value in changes.items() if name in node["inputs"]})
        if node["class_type"] == "CLIPLoader":  # core's loader knows UMT5-XXL alone
            node.update(class_type="Wan22TextEncoderLoader", inputs={"text_encoder": node["inputs"]["clip_name"], "device": "default"})
    (video,) = server.saved_videos(server.run(prompt))
    facts = videos.facts(video)
    assert (facts.width, facts.height, facts.frames) == (64, 64, FRAMES.get(path.stem, 33))


def blueprint() -> tuple[dict[str, Any], dict[str, Any]]:
    """The node that a user puts down, and the subgraph in it."""
    workflow = json.loads(BLUEPRINT.read_text(encoding="utf-8"))
    (node,), (subgraph,) = workflow["nodes"], workflow["definitions"]["subgraphs"]
    return node, subgraph


def test_the_blueprint_is_the_endpoint_with_its_names_and_defaults() -> None:
    node, subgraph = blueprint()
    names = [name for _, name in node["properties"]["proxyWidgets"]]
    widgets = dict(zip(names, node["widgets_values"], strict=True))
    assert {name: widgets[name] for name in WIDGETS} == WIDGETS
    assert "control_after_generate" not in widgets  # newer front ends warn of it: the seed brings it along
    assert next(node for node in subgraph["nodes"] if node["type"] == "Wan22Sampler")["widgets_values"][1] == "randomize"
    assert [slot["name"] for slot in node["inputs"] if not slot.get("widget")] == ["loras"]
    assert [slot["name"] for slot in node["outputs"]][:2] == ["video", "prompt"]
    assert_models_are_offered(subgraph["nodes"])


def test_the_blueprints_parameters_reach_a_node_each(object_info: dict[str, Any]) -> None:
    _, subgraph = blueprint()
    links = {link["id"]: link for link in subgraph["links"]}
    nodes = {node["id"]: node for node in subgraph["nodes"]}
    for parameter in subgraph["inputs"]:
        (link,) = (links[link_id] for link_id in parameter["linkIds"])
        slot = nodes[link["target_id"]]["inputs"][link["target_slot"]]
        assert slot["link"] == link["id"]
        info = object_info[nodes[link["target_id"]]["type"]]["input"]
        assert slot["name"] in {**info["required"], **info.get("optional", {})}
