"""ComfyUI's own queue, without its server: what is taken out of it, and how far a prompt is."""

import importlib
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


def prompt_queue(pack: ModuleType) -> Any:
    return importlib.import_module(f"{pack.__name__}.nodes.api.local.prompt_queue")


@pytest.fixture
def prompts(pack: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    import comfy.model_management
    from execution import PromptQueue

    prompts = PromptQueue(SimpleNamespace(queue_updated=lambda: None))
    monkeypatch.setattr(prompt_queue(pack), "PromptServer", SimpleNamespace(instance=SimpleNamespace(prompt_queue=prompts)))
    yield prompts
    comfy.model_management.interrupt_current_processing(False)


def put(prompts: Any, number: float, name: str) -> None:
    prompts.put((number, name, {}, {}, [], {}))


def test_places_are_those_of_the_line(pack: ModuleType, prompts: Any) -> None:
    for number, name in ((3, "third"), (1, "first"), (2, "b"), (2, "a")):
        put(prompts, number, name)
    assert [prompt_queue(pack).waiting_before(name) for name in ("first", "a", "b", "third", "nobody")] == [0, 1, 2, 3, None]
    prompts.queue += [(4, "same", {"1": {}}, {}, [], {}), (4, "same", {"2": {}}, {}, [], {})]  # which Python cannot put in order
    assert prompt_queue(pack).waiting_before("same") == 4
    assert prompts.get()[0][1] == "first"
    assert [prompt_queue(pack).waiting_before(name) for name in ("first", "a")] == [None, 0]
    assert prompt_queue(pack).is_running("first") and not prompt_queue(pack).is_running("a")


def test_taking_out_interrupts_the_running_prompt_and_no_other(pack: ModuleType, prompts: Any) -> None:
    from comfy.model_management import processing_interrupted

    for number, name in enumerate(("done", "runs", "waits")):
        put(prompts, number, name)
    prompts.task_done(prompts.get()[1], {}, None)
    prompts.get()
    for name in ("done", "waits", "nobody"):
        prompt_queue(pack).take_out(name)
    assert not processing_interrupted() and prompt_queue(pack).waiting_before("waits") is None
    prompt_queue(pack).take_out("runs")
    assert processing_interrupted()


def test_an_interruption_that_comfyui_forgot_can_be_said_again(pack: ModuleType, prompts: Any) -> None:
    from comfy.model_management import interrupt_current_processing, processing_interrupted

    put(prompts, 0, "starts")
    prompts.get()
    prompt_queue(pack).take_out("starts")
    interrupt_current_processing(False)  # as the executor does when it begins
    prompt_queue(pack).take_out("starts")
    assert processing_interrupted()


def test_what_waits_is_withdrawn_and_what_runs_is_left_alone(pack: ModuleType, prompts: Any) -> None:
    queue = prompt_queue(pack)
    put(prompts, 1, "runs")
    prompts.get()
    put(prompts, 2, "waits")
    assert [queue.withdraw(name) for name in ("runs", "waits", "waits", "unknown")] == [False, True, False, False]
    assert queue.is_running("runs") and not prompts.queue
