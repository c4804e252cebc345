"""Small words of the node declarations that ComfyUI 0.3.75 does not have yet."""

from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar

from comfy_api.latest import io

W = TypeVar("W", bound=io.Input)

CATEGORY = "Wan 2.2"


def advanced(widget: W) -> W:
    """Fold the widget away under "advanced"; as a keyword, older ComfyUI versions would refuse it."""
    widget.extra_dict = {**widget.extra_dict, "advanced": True}
    return widget


def found_by(*words: str) -> dict[str, list[str]]:
    """Words beside the name that find a node in the search, as a keyword for Schema where this ComfyUI knows one."""
    return {"search_aliases": list(words)} if "search_aliases" in {field.name for field in fields(io.Schema)} else {}


def first_refusal(*verdicts: bool | str) -> bool | str:
    """Of several verdicts the first that is no True."""
    return next((one for one in verdicts if one is not True), True)


def verdict(check: Callable[..., object], *values: object) -> bool | str:
    """What `validate_inputs` returns: True, or the text of the ValueError that `check(*values)` raises.

    A value that comes over a link is not known yet and arrives as None: then the check waits for execution.
    """
    if any(value is None for value in values):
        return True
    try:
        check(*values)
    except ValueError as error:
        return str(error)
    return True
