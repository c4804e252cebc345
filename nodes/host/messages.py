"""What the user reads while a graph runs: the log and the text on a node."""

import logging

from server import PromptServer

log = logging.getLogger("wan22")


def warn(node_id: str | None, text: str) -> None:
    """A warning in the log and on the node."""
    log.warning("[Wan 2.2] %s", text)
    show(node_id, f"Warning: {text}")


def report(node_id: str | None, lines: list[str], warnings: list[str]) -> None:
    """Several lines, each in the log, all on the node; warnings first."""
    for warning in warnings:
        log.warning("[Wan 2.2] %s", warning)
    for line in lines:
        log.info("[Wan 2.2] %s", line)
    told = [*(f"Warning: {warning}" for warning in warnings), *lines]
    show(node_id, told[0] if len(told) == 1 else "\n".join(f"- {line}" for line in told))  # Nodes 2.0 reads it as Markdown


def show(node_id: str | None, text: str) -> None:
    """Text on a node while and after it runs."""
    server = getattr(PromptServer, "instance", None)
    if server is not None and node_id is not None:
        server.send_progress_text(text, node_id, server.client_id)
