"""ComfyUI's own queue: put a prompt into it, see where it is, take it out, and read what became of it."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_management
import execution
from comfy_execution.progress import get_progress_state
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ...engine.log import MARK, log

Prompt = dict[str, dict[str, Any]]
Say = Callable[[str], None]
Listener = Callable[[str, str], None]


LOW = 2**40  # that many prompts are never ahead, and JavaScript still counts them


class PromptRefused(ValueError):
    """ComfyUI does not queue the prompt; the text holds what its nodes say."""


@dataclass(frozen=True)
class Outcome:
    """What history says: outputs per node; for a failure the exception's class and message, or that it was interrupted."""

    outputs: dict[str, dict[str, Any]]
    interrupted: bool = False
    exception: str = ""
    message: str = ""


@dataclass(frozen=True)
class Bar:
    """How far a node is: `value` of `most`."""

    node_id: str
    value: int
    most: int


async def put(prompt_id: str, prompt: Prompt, low: bool = False) -> None:
    """Check the prompt as ComfyUI's /prompt does and put it behind all others; one of `low` priority lets those that come later go first too.
    PromptRefused when a node refuses its inputs."""
    server = PromptServer.instance
    prompt = server.trigger_on_prompt({"prompt": prompt, "prompt_id": prompt_id})["prompt"]
    valid, error, outputs, node_errors = await execution.validate_prompt(prompt_id, prompt, None)
    if not valid:
        sentences = [_sentence(each) for node in node_errors.values() for each in node["errors"]]
        raise PromptRefused(" ".join(dict.fromkeys(sentences)) or error["message"])
    number, server.number = server.number, server.number + 1
    server.prompt_queue.put((number + LOW * low, prompt_id, prompt, {"create_time": int(time.time() * 1000)}, outputs, {}))


def _sentence(error: dict[str, Any]) -> str:
    """What a node said itself, or else what ComfyUI says of its input."""
    own = error["details"].partition(" - ")[2] if error["type"] == "custom_validation_failed" else ""
    return own or f"{error['message']}: {error['details']}"


def waiting_before(prompt_id: str) -> int | None:
    """How many prompts wait before this one; None where it does not wait."""
    places = [item[:2] for item in PromptServer.instance.prompt_queue.get_current_queue_volatile()[1]]
    own = next((place for place in places if place[1] == prompt_id), None)
    return None if own is None else sum(place < own for place in places)


def is_running(prompt_id: str) -> bool:
    return any(item[1] == prompt_id for item in PromptServer.instance.prompt_queue.get_current_queue_volatile()[0])


def withdraw(prompt_id: str) -> bool:
    """Remove the prompt where it waits; whether it did. One that runs is left alone."""
    return bool(PromptServer.instance.prompt_queue.delete_queue_item(lambda item: item[1] == prompt_id))


def forget(prompt_id: str) -> None:
    """Remove what ComfyUI's history says of the prompt."""
    PromptServer.instance.prompt_queue.delete_history_item(prompt_id)


def take_out(prompt_id: str) -> None:
    """Remove the prompt where it waits, interrupt it where it runs. ComfyUI forgets an interruption that comes while it starts a prompt, so this
    is to be said again as long as the prompt is there."""
    prompts = PromptServer.instance.prompt_queue
    with prompts.mutex:  # so that no other prompt begins before it is interrupted
        if not prompts.delete_queue_item(lambda item: item[1] == prompt_id) and is_running(prompt_id):
            comfy.model_management.interrupt_current_processing()


def progress(prompt_id: str) -> Bar | None:
    """The bar that the prompt advances now; None where it advances none."""
    state = get_progress_state()
    if state is None or state.prompt_id != prompt_id:
        return None
    bars = [Bar(node_id, int(bar["value"]), int(bar["max"])) for node_id, bar in list(state.nodes.items()) if bar["state"].value == "running"]
    return next((bar for bar in bars if bar.most > 1), None)


def outcome(prompt_id: str) -> Outcome | None:
    """None as long as ComfyUI's history does not know the prompt."""
    entry = PromptServer.instance.prompt_queue.get_history(prompt_id=prompt_id).get(prompt_id)
    if entry is None:
        return None
    messages = dict(message[:2] for message in (entry["status"] or {}).get("messages", []))
    error = messages.get("execution_error", {})
    return Outcome(entry["outputs"], "execution_interrupted" in messages, error.get("exception_type", ""), error.get("exception_message", "").strip())


class LogLines(logging.Handler):
    """Passes the pack's log lines on to whoever listens to the prompt that they are about; those of a private prompt to nobody else."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._listeners: dict[str, Listener] = {}
        self._private: set[str] = set()
        log.logger.addHandler(self)
        log.logger.addFilter(self._is_for_all)

    def listen(self, prompt_id: str, listener: Listener, private: bool) -> None:
        self._listeners[prompt_id] = listener
        if private:
            self._private.add(prompt_id)

    def end(self, prompt_id: str) -> None:
        self._listeners.pop(prompt_id, None)
        self._private.discard(prompt_id)

    def emit(self, record: logging.LogRecord) -> None:
        listener = self._listeners.get(_running_prompt())
        if listener is not None:
            listener(record.getMessage().removeprefix(MARK), record.levelname)

    def _is_for_all(self, record: logging.LogRecord) -> bool:
        """The logger's filter, which comes before every handler: a private line is passed on here, since no handler gets it."""
        if _running_prompt() not in self._private:
            return True
        if record.levelno >= self.level:
            self.handle(record)
        return False


def _running_prompt() -> str:
    """Of the code that asks; empty where it belongs to none."""
    running = get_executing_context()
    return running.prompt_id if running else ""
