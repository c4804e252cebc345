"""Every stage of a run advances a bar on its node, and the sampler says which expert is at work."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import pytest

import workflows
from comfyui import ComfyUI, Prompt

Build = Callable[..., Prompt]
STAGES = ("Wan22TextEncoderLoader", "Wan22ExpertLoader", "Wan22InterpolatorLoader", "Wan22ApplyLoRAs", "Wan22TextEncode", "Wan22Sampler",
          "Wan22SaveVideo")


@pytest.fixture(scope="module")
def run(server: ComfyUI, object_info: dict[str, Any], helper_models: None) -> Iterator[tuple[Prompt, list[tuple[str, dict[str, Any]]]]]:
    """A prompt nobody ran before, and what the server said meanwhile."""
    prompt = workflows.to_prompt(workflows.shipped("full"), object_info)
    workflows.node_of(prompt, "Wan22CheckVideo")["enabled"] = True
    changes = {"resolution": "custom", "width": 64, "height": 64, "num_frames": 17, "steps": 4, "seed": 77, "model": "rife", "prompt": "progress",
               "weight_dtype": "fp8_e5m2", "device": "cpu", "when_unsafe": "blur"}
    for node in prompt.values():
        node["inputs"].update({name: value for name, value in changes.items() if name in node["inputs"]})
    server.free()  # for what is cached says nothing
    said_before = len(server.log())
    listening = server.events()
    prompt_id, heard = server.queue(prompt), []
    for kind, data in listening:
        heard.append((kind, data))
        if kind == "execution_success" and data["prompt_id"] == prompt_id:
            break
        assert kind != "execution_error", data
    yield prompt, [*heard, ("log", {"text": server.log()[said_before:]})]


@pytest.mark.parametrize("class_type", STAGES)
def test_every_stage_advances_a_bar_to_its_end(run: tuple[Prompt, list[Any]], class_type: str) -> None:
    prompt, heard = run
    (node,) = workflows.nodes_of(prompt, class_type)
    bars = [(data["value"], data["max"]) for kind, data in heard if kind == "progress" and data["node"] == node]
    assert len(bars) >= 2
    assert [value for value, _ in bars] == sorted(value for value, _ in bars)
    assert bars[-1][0] == bars[-1][1]


def test_a_classifier_is_loaded_and_then_frames_are_counted_while_they_are_made_and_written(run: tuple[Prompt, list[Any]]) -> None:
    prompt, heard = run
    (node,) = workflows.nodes_of(prompt, "Wan22SaveVideo")
    lengths = [data["max"] for kind, data in heard if kind == "progress" and data["node"] == node]
    assert [length for length, _ in groupby(lengths)] == [1, 33]


def test_the_sampler_says_which_expert_is_at_work(run: tuple[Prompt, list[Any]]) -> None:
    prompt, heard = run
    (log,) = (data["text"] for kind, data in heard if kind == "log")
    lines = [line.split("[Wan 2.2] ")[-1] for line in log.splitlines() if "-noise expert: steps" in line]
    assert lines == ["high-noise expert: steps 1 to 2 of 4", "low-noise expert: steps 3 to 4 of 4"]


def test_text_on_a_node_goes_to_the_page_that_runs_it_alone(server: ComfyUI) -> None:
    """A program's prompt has no page, and its node 1 is not the node 1 of a page that is open meanwhile."""
    def check(text: str) -> Prompt:
        inputs = {"text": text, "enabled": True, "classifier": "phrase list", "threshold": 1.0, "unsafe_labels": ""}
        return {"1": {"class_type": "Wan22CheckPrompt", "inputs": inputs}, "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}}

    listening = server.events()
    next(listening)
    server.wait(server.post("/prompt", {"prompt": check("a nude woman")})["prompt_id"])
    server.queue(check("a fox"))
    first = next(data for kind, data in listening if kind == "progress_text")
    assert first["node"] == "1" and "nude" not in first["text"]
