"""The shipped workflows in the real front end, as a person meets them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

import videos
import workflows
from comfyui import ROOT, ComfyUI, Prompt

FILES = workflows.workflow_files()
BROKEN_NODES = "() => app.graph.nodes.filter(node => node.has_errors || !node.constructor.nodeData && !node.isVirtualNode).length"
SET_WIDGETS = """changes => app.graph.nodes.flatMap(node => node.widgets ?? []).forEach(widget => {
    if (widget.name in changes) widget.value = changes[widget.name]
})"""
DROP_FILE = """async url => {
    const transfer = new DataTransfer()
    transfer.items.add(new File([await (await fetch(url)).blob()], 'clip.mp4', {type: 'video/mp4'}))
    const at = {bubbles: true, cancelable: true, dataTransfer: transfer, clientX: 900, clientY: 900}
    document.querySelector('#graph-canvas').dispatchEvent(new DragEvent('drop', at))
}"""
SCREENSHOTS = ROOT / ".dev" / "screenshots"


def open_workflow(page: Page, workflow: workflows.Workflow) -> None:
    page.evaluate("workflow => window.app.loadGraphData(workflow)", workflow)
    page.wait_for_function("count => window.app.graph.nodes.length === count", arg=len(workflow["nodes"]))


def screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(500)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def sent_prompt(page: Page) -> Prompt:
    """What the front end would queue now."""
    prompt = page.evaluate("async () => JSON.parse(JSON.stringify((await window.app.graphToPrompt()).output))")
    return {node_id: {"class_type": node["class_type"], "inputs": node["inputs"]} for node_id, node in prompt.items()}


def without_seed(prompt: Prompt) -> Prompt:
    """The front end draws another one after each run."""
    kept = {node_id: {name: value for name, value in node["inputs"].items() if name != "seed"} for node_id, node in prompt.items()}
    return {node_id: {"class_type": node["class_type"], "inputs": kept[node_id]} for node_id, node in prompt.items()}


def test_the_endpoints_url_is_one_of_comfyuis_settings(page: Page, server: ComfyUI) -> None:
    page.evaluate("() => window.app.extensionManager.setting.set('Wan22.LLM.URL', 'http://127.0.0.1:9/v1')")
    assert server.get("/settings")["Wan22.LLM.URL"] == "http://127.0.0.1:9/v1"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_workflows_open_whole(page: Page, path: Path, object_info: dict[str, Any]) -> None:
    workflow = workflows.shipped(path.stem)
    open_workflow(page, workflow)
    screenshot(page, path.stem)
    assert page.evaluate(BROKEN_NODES) == 0
    assert page.locator(".p-dialog").count() == 0
    assert sent_prompt(page) == workflows.to_prompt(workflow, object_info)


def test_run_plays_the_video_on_the_node(page: Page, server: ComfyUI, small_prompt: Callable[..., Prompt]) -> None:
    workflow = workflows.shipped("text_to_video")
    open_workflow(page, workflow)
    page.evaluate(SET_WIDGETS, {"resolution": "custom", "width": 64, "height": 64, "num_frames": 17, "steps": 2, "filename_prefix": "browser/clip"})
    before = without_seed(sent_prompt(page))
    page.evaluate("() => window.app.queuePrompt(0)")
    video = page.locator("video").first
    video.wait_for(state="attached", timeout=60_000)
    page.wait_for_function("() => { const video = document.querySelector('video'); return video.readyState >= 2 && video.videoWidth === 64 }")
    screenshot(page, "video_on_node")
    (saved,) = (server.base / "output" / "browser").glob("*.mp4")
    assert videos.facts(saved).frames == 33
    assert page.evaluate("() => document.querySelector('video').duration") == pytest.approx(33 / 32, abs=0.01)
    page.evaluate("() => window.app.graph.clear()")
    page.evaluate(DROP_FILE, f"/view?filename={saved.name}&subfolder=browser&type=output")
    page.wait_for_function("count => window.app.graph.nodes.length === count", arg=len(workflow["nodes"]))
    assert without_seed(sent_prompt(page)) == before
