"""An interrupted writer leaves no broken file and nothing else, and the next run works. Of a killed server tests/api/local tells."""

from collections.abc import Callable
from pathlib import Path

import workflows
from comfyui import ComfyUI, Prompt

Build = Callable[..., Prompt]


def slow_to_write(small_prompt: Build, **changes: object) -> Prompt:
    return small_prompt(width=240, height=240, num_frames=49, steps=1, video_write_mode="small", **changes)


def until_writing(server: ComfyUI, prompt: Prompt, act: Callable[[], object]) -> str:
    """Queue `prompt`, call `act` once Save Video has written frames, return how it ended."""
    (save,) = workflows.nodes_of(prompt, "Wan22SaveVideo")
    events = server.events()
    prompt_id = server.queue(prompt)
    acted = False
    for kind, data in events:
        if kind == "progress" and data["node"] == save and data["value"] > 1 and not acted:
            acted = True
            act()
        if kind in ("execution_success", "execution_error", "execution_interrupted") and data["prompt_id"] == prompt_id:
            events.close()
            return kind
    raise AssertionError("the websocket closed")


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_interrupting_the_writer_leaves_nothing(server: ComfyUI, small_prompt: Build) -> None:
    prompt = slow_to_write(small_prompt, filename_prefix="interrupted/clip", seed=301)
    assert until_writing(server, prompt, lambda: server.post("/interrupt")) == "execution_interrupted"
    assert files_below(server.base / "output" / "interrupted") == []
    (path,) = server.saved_videos(server.run(small_prompt(filename_prefix="interrupted/clip", seed=302)))
    assert path.name == "clip_00001_.mp4"
