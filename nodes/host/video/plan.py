"""What a prompt says of a video before anything is computed: its frames per second, and whether it gets a sound."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from comfy_execution.progress import NodeState, get_progress_state

from ...engine.video.formats import ANIMATIONS, SEQUENCES, check_rate

Prompt = Mapping[str, Any]  # as ComfyUI queues it: node id to class_type and inputs
RATES = {"Wan22Decode": "frames_per_second", "CreateVideo": "fps"}
PASSED_ON = ("Wan22CheckVideo", "Wan22Interpolate")
NO_NETWORK, EMPTY_LATENT = "none", "Wan22EmptyLatent"


def planned_rate(prompt: Prompt, node_id: str) -> Fraction | None:
    """Frames per second of the VIDEO that comes into a node; None where a link or a node of another pack decides."""
    return _rate_into(prompt, prompt.get(node_id, {}))


def rate_of_clip(prompt: Prompt, node_id: str) -> Fraction | None:
    """Frames per second at which the latent of a node is shown: those of the nearest node behind it that says so; None without one."""
    behind, seen = [node_id], {node_id}
    for source in behind:
        for name, node in prompt.items():
            if name not in seen and any(isinstance(link, list) and link and str(link[0]) == source for link in node["inputs"].values()):
                if (rate := _rate_of(node)) is not None:
                    return rate
                seen.add(name)
                behind.append(name)
    return None


def _rate_of(node: Mapping[str, Any]) -> Fraction | None:
    """That a node gives its video, where it is one that does and no link decides."""
    rate = node.get("inputs", {}).get(RATES.get(node.get("class_type", ""), ""))
    return Fraction(rate).limit_denominator(1001) if isinstance(rate, int | float) and rate > 0 else None


def check_way_out(prompt: Prompt, node_id: str, codec: str, container: str) -> None:
    """ValueError where the file that a node is to write takes no such rate, or no sound, and the prompt says so already."""
    rate = planned_rate(prompt, node_id)
    if rate is not None:
        check_rate(codec, rate, container)
    if container in ANIMATIONS + SEQUENCES and isinstance(prompt.get(node_id, {}).get("inputs", {}).get("audio"), list):
        raise ValueError(f"audio is connected, and {container} holds no sound. Disconnect it, or choose the container mp4.")


def _rate_into(prompt: Prompt, node: Mapping[str, Any]) -> Fraction | None:
    node = _source(prompt, node, "video")
    name, inputs = node.get("class_type"), node.get("inputs", {})
    if name not in PASSED_ON:
        return _rate_of(node)
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
