"""The shipped workflows in the real front end, as a person meets them."""

import pytest
from playwright.sync_api import Page

import videos
import workflows
from comfyui import ComfyUI, Prompt
from front_end import open_workflow, screenshot, sent_prompt, set_widgets, wait_for_nodes

DROP_FILE = """async url => {
    const transfer = new DataTransfer()
    transfer.items.add(new File([await (await fetch(url)).blob()], 'clip.mp4', {type: 'video/mp4'}))
    const at = {bubbles: true, cancelable: true, dataTransfer: transfer, clientX: 900, clientY: 900}
    document.querySelector('#graph-canvas').dispatchEvent(new DragEvent('drop', at))
}"""


def without_seed(prompt: Prompt) -> Prompt:
    """The front end draws another one after each run."""
    kept = {node_id: {name: value for name, value in node["inputs"].items() if name != "seed"} for node_id, node in prompt.items()}
    return {node_id: {"class_type": node["class_type"], "inputs": kept[node_id]} for node_id, node in prompt.items()}


def test_the_endpoints_url_is_one_of_comfyuis_settings(page: Page, server: ComfyUI) -> None:
    page.evaluate("() => window.app.extensionManager.setting.set('Wan22.LLM.URL', 'http://127.0.0.1:9/v1')")
    assert server.get("/settings")["Wan22.LLM.URL"] == "http://127.0.0.1:9/v1"


def test_run_plays_the_video_on_the_node(canvas: Page, server: ComfyUI, request: pytest.FixtureRequest) -> None:
    workflow = workflows.shipped("text_to_video")
    open_workflow(canvas, workflow)
    folder = f"browser_{request.node.callspec.id}"
    set_widgets(canvas, {"resolution": "custom", "width": 64, "height": 64, "num_frames": 17, "steps": 2,
                         "filename_prefix": f"{folder}/clip"})
    before = without_seed(sent_prompt(canvas))
    canvas.evaluate("() => window.app.queuePrompt(0)")
    video = canvas.locator("video").first
    video.wait_for(state="attached", timeout=60_000)
    canvas.wait_for_function("() => { const video = document.querySelector('video'); return video.readyState >= 2 && video.videoWidth === 64 }")
    screenshot(canvas, f"video_on_node_{request.node.callspec.id}")
    (saved,) = (server.base / "output" / folder).glob("*.mp4")
    assert videos.facts(saved).frames == 33
    assert canvas.evaluate("() => document.querySelector('video').duration") == pytest.approx(33 / 32, abs=0.01)
    canvas.evaluate("() => window.app.graph.clear()")
    canvas.evaluate(DROP_FILE, f"/view?filename={saved.name}&subfolder={folder}&type=output")
    wait_for_nodes(canvas, len(workflow["nodes"]))
    assert without_seed(sent_prompt(canvas)) == before
