"""The blueprint "Wan 2.2 Text to Video" as the prompt that ComfyUI executes: what a user sees as one node is what a request becomes."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .contract import LoRAWeight

Prompt = dict[str, dict[str, Any]]
FROM_OUTSIDE = -10  # the front end's id of what a subgraph's inputs come from
DRAWN_ONLY = ("Note", "MarkdownNote")
SAVE, EXPAND, SAMPLER, APPLY_LORAS = "Wan22SaveVideo", "Wan22ExpandPrompt", "Wan22Sampler", "Wan22ApplyLoRAs"
WHOLE_RUN = {"first_step": 1, "last_step": 0}  # of a LoRA node: a request names no steps


class Blueprint:
    """A subgraph as the front end saves it. `inputs` are the names of its parameters in their order."""

    def __init__(self, workflow: Mapping[str, Any]) -> None:
        """ValueError where the workflow holds none, or more than one."""
        subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
        if len(subgraphs) != 1:
            raise ValueError(f"the blueprint holds {len(subgraphs)} subgraphs; it must hold one.")
        (subgraph,) = subgraphs
        self.nodes = [node for node in subgraph["nodes"] if node["type"] not in DRAWN_ONLY]
        self.links = {link["id"]: link for link in subgraph["links"]}
        self.inputs = [each["name"] for each in subgraph["inputs"]]

    @classmethod
    def read(cls, path: Path) -> "Blueprint":
        """ValueError for a file that holds no blueprint, OSError for one that cannot be read."""
        try:
            blueprint = cls(json.loads(path.read_text(encoding="utf-8")))
            blueprint.prompt({}, [], 0, "")
        except (ValueError, LookupError, TypeError, AttributeError, StopIteration, RuntimeError, RecursionError) as error:
            raise ValueError(f"the blueprint {path.name} is damaged ({type(error).__name__}: {error}). Install the pack anew.") from error
        return blueprint

    def node_id(self, class_type: str) -> str:
        """The prompt's name of the only node of this class."""
        (node_id,) = (str(node["id"]) for node in self.nodes if node["type"] == class_type)
        return node_id

    def title(self, node_id: str) -> str:
        """The node's class as a user reads it; for a LoRA of a request, its id."""
        return next((node["type"].removeprefix("Wan22") for node in self.nodes if str(node["id"]) == node_id), node_id)

    def prompt(self, values: Mapping[str, Any], loras: list[tuple[str, LoRAWeight]], seed: int, filename_prefix: str) -> Prompt:
        """The prompt for the parameters in `values`, each under its name in the blueprint; the others keep the blueprint's value.

        `loras` are files in models/loras with what the request says of each; `seed` decides the noise and the expansion of the prompt.
        """
        prompt = {str(node["id"]): {"class_type": node["type"], "inputs": dict(self._inputs(node, values))} for node in self.nodes}
        prompt[self.node_id(SAMPLER)]["inputs"]["seed"] = seed
        prompt[self.node_id(EXPAND)]["inputs"]["seed"] = seed
        prompt[self.node_id(SAVE)]["inputs"]["filename_prefix"] = filename_prefix
        stack: dict[str, Any] = {}
        for index, (file, weight) in enumerate(loras):
            prompt[f"lora{index}"] = {"class_type": "Wan22LoRA", "inputs": {
                "lora": file, "scale": weight.scale, "transformer": weight.transformer, **WHOLE_RUN, **stack}}
            stack = {"stack": [f"lora{index}", 0]}
        if stack:
            prompt[self.node_id(APPLY_LORAS)]["inputs"]["loras"] = stack["stack"]
        return prompt

    def _inputs(self, node: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        saved = iter(node.get("widgets_values") or [])
        for slot in node["inputs"]:
            own = next(saved) if slot.get("widget") else None
            if (node["type"], slot["name"]) == (SAMPLER, "seed"):
                next(saved)  # what the front end does with the seed after a run
            link = self.links.get(slot.get("link"))
            if link is not None and link["origin_id"] != FROM_OUTSIDE:
                yield slot["name"], [str(link["origin_id"]), link["origin_slot"]]
            elif link is not None and (name := self.inputs[link["origin_slot"]]) in values:
                yield slot["name"], values[name]
            elif slot.get("widget"):
                yield slot["name"], own
