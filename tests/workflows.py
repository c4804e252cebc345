"""Workflow files of the front end, turned into the API prompts that the server executes."""

import json
from pathlib import Path
from typing import Any

from comfyui import ROOT, Prompt

Workflow = dict[str, Any]
SHIPPED = ROOT / "workflows"
AFTER_GENERATE = ("fixed", "increment", "decrement", "randomize")
DRAWN_ONLY = ("Note", "MarkdownNote")
MUTED = 2  # a node's mode


def shipped(name: str) -> Workflow:
    return json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))


def workflow_files() -> list[Path]:
    return sorted(SHIPPED.glob("*.json"))


def to_prompt(workflow: Workflow, object_info: dict[str, Any]) -> Prompt:
    """What the front end sends for this workflow: linked inputs as [node, slot], widget values by name."""
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    return {str(node["id"]): {"class_type": node["type"], "inputs": _inputs(node, object_info[node["type"]], sources)}
            for node in workflow["nodes"] if node["type"] not in DRAWN_ONLY and node["mode"] != MUTED}


def unmuted(workflow: Workflow) -> Workflow:
    """The workflow with every node switched on."""
    return {**workflow, "nodes": [{**node, "mode": 0} for node in workflow["nodes"]]}


def _inputs(node: dict[str, Any], info: dict[str, Any], sources: dict[int, list[Any]]) -> dict[str, Any]:
    linked = {slot["name"]: sources[slot["link"]] for slot in node["inputs"] if slot.get("link") is not None}
    values = iter(node.get("widgets_values", []))
    widgets = {}
    for name, spec in {**info["input"].get("required", {}), **info["input"].get("optional", {})}.items():
        if _has_widget(spec):
            widgets[name] = next(values, spec[1].get("default") if len(spec) > 1 else None)
            if len(spec) > 1 and spec[1].get("control_after_generate"):
                assert next(values) in AFTER_GENERATE
    return {**widgets, **linked}


def _has_widget(spec: list[Any]) -> bool:
    kind = spec[0]
    return isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO") or kind.startswith("COMFY_DYNAMICCOMBO")


def nodes_of(prompt: Prompt, class_type: str) -> list[str]:
    return [node_id for node_id, node in prompt.items() if node["class_type"] == class_type]


def node_of(prompt: Prompt, class_type: str) -> dict[str, Any]:
    """Inputs of the only node of this class."""
    (node_id,) = nodes_of(prompt, class_type)
    return prompt[node_id]["inputs"]


def repeatably_coded(prompt: Prompt) -> Prompt:
    """The same prompt saving ProRes, which is the same file for the same frames: x264 looks ahead at random on processors with AVX-512."""
    node_of(prompt, "Wan22SaveVideo").update(codec="prores", video_quality="maximum")
    return prompt


def with_loras(prompt: Prompt, loras: list[tuple[str, float]]) -> Prompt:
    """The prompt with a stack of LoRAs, as (file, scale), between the expert loader and the sampler."""
    if not loras:
        return prompt
    made = {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in prompt.items()}
    for index, (file, scale) in enumerate(loras):
        below = {"stack": [f"lora-{index - 1}", 0]} if index else {}
        made[f"lora-{index}"] = {"class_type": "Wan22LoRA", "inputs": {"lora": file, "scale": scale, "transformer": "auto", **below}}
    sampler = node_of(made, "Wan22Sampler")
    made["loras"] = {"class_type": "Wan22ApplyLoRAs", "inputs": {"high_noise": sampler["high_noise"], "low_noise": sampler["low_noise"],
                                                                "loras": [f"lora-{len(loras) - 1}", 0]}}
    sampler.update(high_noise=["loras", 0], low_noise=["loras", 1])
    return made
