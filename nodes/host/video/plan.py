"""What a prompt says of a video before anything is computed: its frames per second."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from comfy_execution.progress import NodeState, get_progress_state

Prompt = Mapping[str, Any]  # as ComfyUI queues it: node id to class_type and inputs
RATES = {"Wan22Decode": "frames_per_second", "CreateVideo": "fps"}
PASSED_ON = ("Wan22CheckVideo", "Wan22Interpolate")
NO_NETWORK, EMPTY_LATENT = "none", "Wan22EmptyLatent"


def planned_rate(prompt: Prompt, node_id: str) -> Fraction | None:
    """Frames per second of the VIDEO that comes into a node; None where a link or a node of another pack decides."""
    return _rate_into(prompt, prompt.get(node_id, {}))


def _rate_into(prompt: Prompt, node: Mapping[str, Any]) -> Fraction | None:
    node = _source(prompt, node, "video")
    name, inputs = node.get("class_type"), node.get("inputs", {})
    if name in RATES:
        rate = inputs.get(RATES[name])
        return Fraction(rate).limit_denominator(1001) if isinstance(rate, int | float) else None
    if name not in PASSED_ON:
        return None
    before, times = _rate_into(prompt, node), _times(prompt, inputs) if name == "Wan22Interpolate" and not _has_picture(prompt) else 1
    return None if before is None or times is None else before * times


def _has_picture(prompt: Prompt) -> bool:
    """Whether a video of one frame is made somewhere, which interpolation leaves at its rate; the rate is checked again when the file is begun."""
    return any(node.get("class_type") == EMPTY_LATENT and node.get("inputs", {}).get("num_frames") == 1 for node in prompt.values())


def _times(prompt: Prompt, inputs: Mapping[str, Any]) -> int | None:
    """By how much interpolation multiplies the frames per second."""
    if _source(prompt, {"inputs": inputs}, "interpolator").get("inputs", {}).get("model") == NO_NETWORK:
        return 1
    new_frames, adjust = inputs.get("num_interpolated_frames"), inputs.get("adjust_fps_for_interpolation")
    if not isinstance(new_frames, int) or not isinstance(adjust, bool):
        return None
    return new_frames + 1 if adjust else 1


def _source(prompt: Prompt, node: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The node that an input is linked to; an empty one for none."""
    link = node.get("inputs", {}).get(name)
    source: Mapping[str, Any] = prompt.get(str(link[0]), {}) if isinstance(link, list) and link else {}
    return source


def wait(node_id: str) -> None:
    """A node that only asks for its inputs does not run yet: ComfyUI would show it at work until they come."""
    if state := get_progress_state().nodes.get(node_id):
        state["state"] = NodeState.Pending
