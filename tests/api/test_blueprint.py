"""The shipped blueprint becomes the prompt of a request: each parameter reaches the input that the blueprint's widget reaches."""

import pytest
from wan22.api.blueprint import Blueprint
from wan22.api.contract import LoRAWeight, TextToVideoInput

from comfyui import ROOT

FILE = ROOT / "subgraphs" / "Wan 2.2 Text to Video.json"


@pytest.fixture(scope="module")
def blueprint() -> Blueprint:
    return Blueprint.read(FILE)


def test_the_blueprint_has_every_parameter_of_the_endpoint_but_the_seed(blueprint: Blueprint) -> None:
    assert set(TextToVideoInput.model_fields) - {"seed"} <= set(blueprint.inputs)


def test_the_endpoints_defaults_are_the_blueprints(blueprint: Blueprint) -> None:
    values = TextToVideoInput(prompt="").model_dump(exclude={"seed", "loras"})
    assert blueprint.prompt(values, [], 0, "x") == blueprint.prompt({}, [], 0, "x")


@pytest.mark.parametrize("name", sorted(set(TextToVideoInput.model_fields) - {"seed", "loras"}))
def test_a_parameter_reaches_exactly_one_input(blueprint: Blueprint, name: str) -> None:
    plain, changed = blueprint.prompt({}, [], 0, "x"), blueprint.prompt({name: "another"}, [], 0, "x")
    differing = [(node, key) for node in plain for key in plain[node]["inputs"] if plain[node]["inputs"][key] != changed[node]["inputs"][key]]
    (place,) = differing
    assert changed[place[0]]["inputs"][place[1]] == "another"


def test_seed_and_prefix_reach_their_nodes(blueprint: Blueprint) -> None:
    prompt = blueprint.prompt({}, [], 2**64 - 1, "video/api/x")
    assert prompt[blueprint.node_id("Wan22Sampler")]["inputs"]["seed"] == 2**64 - 1
    assert prompt[blueprint.node_id("Wan22ExpandPrompt")]["inputs"]["seed"] == 2**64 - 1
    assert prompt[blueprint.node_id("Wan22SaveVideo")]["inputs"]["filename_prefix"] == "video/api/x"


def test_loras_are_stacked_in_their_order(blueprint: Blueprint) -> None:
    weights = [LoRAWeight(path="a", scale=0.5), LoRAWeight(path="b", transformer="both")]
    prompt = blueprint.prompt({}, [("a.safetensors", weights[0]), ("b.safetensors", weights[1])], 0, "x")
    whole = {"first_step": 1, "last_step": 0}
    assert prompt["lora0"]["inputs"] == {"lora": "a.safetensors", "scale": 0.5, "transformer": "high", **whole}
    assert prompt["lora1"]["inputs"] == {"lora": "b.safetensors", "scale": 1.0, "transformer": "both", "stack": ["lora0", 0], **whole}
    assert prompt[blueprint.node_id("Wan22ApplyLoRAs")]["inputs"]["loras"] == ["lora1", 0]


@pytest.mark.parametrize("workflow", [{}, {"definitions": {"subgraphs": []}}])
def test_a_workflow_without_a_subgraph_is_no_blueprint(workflow: dict) -> None:
    with pytest.raises(ValueError, match="holds 0 subgraphs"):
        Blueprint(workflow)
