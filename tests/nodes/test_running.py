"""While and after it runs: progress, previews, interruption, and nothing left behind."""

import time
from collections.abc import Callable

import pytest

import workflows
from comfyui import ComfyUI, Prompt

Build = Callable[..., Prompt]


def sampler_progress(server: ComfyUI, prompt: Prompt, interrupt_at: int | None = None) -> list[tuple[int, int]]:
    """(value, max) of every progress message of the sampler while `prompt` runs; interrupts the run once, from step `interrupt_at` on."""
    (sampler,) = workflows.nodes_of(prompt, "Wan22Sampler")
    events = server.events()
    prompt_id = server.queue(prompt)
    seen = []
    interrupted = False
    for kind, data in events:
        if kind == "progress" and data["node"] == sampler:
            seen.append((data["value"], data["max"]))
            if interrupt_at is not None and data["value"] >= interrupt_at and not interrupted:
                interrupted = True
                server.post("/interrupt")
                seen = seen[-1:]
        if kind in ("execution_success", "execution_error", "execution_interrupted") and data["prompt_id"] == prompt_id:
            events.close()
            return seen
    raise AssertionError("the websocket closed")


def test_one_bar_runs_over_the_steps_of_both_experts(server: ComfyUI, small_prompt: Build) -> None:
    progress = sampler_progress(server, small_prompt(steps=8, seed=101))
    assert progress == sorted(set(progress))  # newer ComfyUI versions leave some out
    assert {maximum for _, maximum in progress} == {8}
    assert progress[-1] == (8, 8)


def test_interrupting_stops_within_a_step_and_the_next_prompt_runs(server: ComfyUI, small_prompt: Build) -> None:
    slow = small_prompt(acceleration="none", steps=100, width=256, height=256, seed=102)
    progress = sampler_progress(server, slow, interrupt_at=3)
    assert progress[-1][0] <= progress[0][0] + 1
    assert server.saved_videos(server.run(small_prompt(seed=103)))


def test_the_schedule_is_reported(server: ComfyUI, small_prompt: Build) -> None:
    seen = len(server.log())
    prompt = small_prompt(steps=27, seed=104)
    prompt["show"] = {"class_type": "PreviewAny", "inputs": {"source": [workflows.nodes_of(prompt, "Wan22Sampler")[0], 1]}}
    outputs = server.run(prompt)
    line = "27 steps: 12 high (t 999..878) + 15 low (t 861..161), guidance 3.5 / 4.0, 28 model calls (13 steps forecast, 26 calls saved)"
    assert line in outputs["show"]["text"][0]
    assert line in server.log()[seen:]


def settled_memory(server: ComfyUI) -> dict[str, int]:
    """What the process holds after ComfyUI was asked to free everything; a model that is really held is still there after two minutes."""
    server.free()
    end = time.monotonic() + 120
    held = server.get("/probe/memory")
    while held["model_patchers"] and time.monotonic() < end:
        time.sleep(0.5)
        held = server.get("/probe/memory")
    return held


@pytest.mark.parametrize("ending", ["finished", "interrupted"])
def test_nothing_is_held_after_a_run(server: ComfyUI, small_prompt: Build, ending: str) -> None:
    server.run(small_prompt(seed=105))
    before = settled_memory(server)
    assert before["model_patchers"] == 0
    if ending == "finished":
        server.run(small_prompt(seed=106, num_frames=33))
    else:
        sampler_progress(server, small_prompt(steps=100, width=128, height=128, seed=107), interrupt_at=2)
    after = settled_memory(server)
    assert after["model_patchers"] == 0
    assert after["tensor_bytes"] <= before["tensor_bytes"] + 1024
