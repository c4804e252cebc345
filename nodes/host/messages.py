"""What the user reads while a graph runs: the log and the text on a node."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import comfy.utils
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..engine.log import log

T = TypeVar("T")
Shown = dict[str, list[str]]  # a node's `ui` output, under the key that core's own nodes use for text


def running_node() -> str | None:
    context = get_executing_context()
    return context.node_id if context else None


def counted(items: Sequence[T]) -> Iterator[T]:
    """The items one by one, with a bar on the running node; none for no items."""
    if not items:
        return
    bar = comfy.utils.ProgressBar(len(items))
    for done, item in enumerate(items):
        bar.update_absolute(done)
        yield item
    bar.update_absolute(len(items))


def show_now(text: str, rest: str) -> None:
    """What happens from now on, in the log, and on the running node before the rest of what it says."""
    log.info("%s", text)
    show(running_node(), f"{text}. {rest}")


def warn(node_id: str | None, text: str) -> None:
    """A warning in the log and on the node."""
    log.warning("%s", text)
    show(node_id, f"Warning: {text}")


def warn_now(text: str) -> None:
    """A warning in the log and on the running node."""
    warn(running_node(), text)


def report(node_id: str | None, lines: list[str], warnings: list[str]) -> Shown:
    """Several lines, each in the log, all on the node; warnings first. Returns what `show` does."""
    for warning in warnings:
        log.warning("%s", warning)
    for line in lines:
        log.info("%s", line)
    texts = [*(f"Warning: {warning}" for warning in warnings), *lines]
    return show(node_id, texts[0] if len(texts) == 1 else "\n".join(f"- {line}" for line in texts))  # Nodes 2.0 reads it as Markdown


def show(node_id: str | None, text: str) -> Shown:
    """Text on a node while and after it runs, in the page that runs it: a program's prompt has none, and ComfyUI would tell every page.

    Returns it as the node's `ui` output, which ComfyUI keeps and sends again where the node is cached: after a reload the page knows nothing else.
    """
    server = getattr(PromptServer, "instance", None)
    if server is not None and server.client_id is not None and node_id is not None:
        server.send_progress_text(text, node_id, server.client_id)
    return {"text": [text]}
