"""The shipped workflows and the blueprint in the real front end, opened as a person opens them, before and after a run, on both canvases."""

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

import videos
import workflows
from comfyui import PACK_FOLDER, ComfyUI, Prompt
from front_end import drawing_every, open_workflow, screenshot, sent_prompt, set_widgets, wait_for_drawing, wait_for_nodes

FILES = workflows.workflow_files()
BROKEN_NODES = "() => app.graph.nodes.filter(node => node.has_errors || !node.constructor.nodeData && !node.isVirtualNode && !node.subgraph).length"
NONE_COVERED = """() => {
    const boxes = [...document.querySelectorAll('[data-node-id]')].map(element => element.getBoundingClientRect())
    const over = (one, two) => one.left < two.right && two.left < one.right && one.top < two.bottom && two.top < one.bottom
    return !boxes.some((one, index) => boxes.slice(0, index).some(two => over(one, two)))
}"""  # nodes that are drawn as elements, in Nodes 2.0
TINY: dict[str, Any] = {"model": "rife", "resolution": "custom", "width": 64, "height": 64, "num_frames": 17, "steps": 2, "enabled": True,
                        "when_unsafe": "blur"}
REPORTS = {"Wan22Sampler": "2 steps: ", "Wan22ApplyLoRAs": "- high: ", "Wan22CheckPrompt": "Nothing unsafe found: ",
           "Wan22CheckVideo": "17 frames looked at"}
SAVED = "() => JSON.parse(JSON.stringify(app.graph.serialize()))"
MEASURED_BY_NODES_2 = ("pos", "size")
PLAYING = """() => { const video = document.querySelector('video'); return video && video.readyState >= 2 && video.videoWidth === 64 }"""
PREVIEW = """width => app.graph.nodes.find(node => node.type === 'Wan22Sampler').widgets.filter(widget => widget.name === 'moving_preview')
    .every(({element}) => element.src.startsWith('data:image/webp;base64,') && element.naturalWidth === width && element.style.display === 'block')"""
TELLING = """texts => app.graph.nodes.filter(node => node.type in texts)
    .every(node => node.widgets.some(widget => widget.element?.textContent === texts[node.type]))"""
DROP_FILE = """async url => {
    const transfer = new DataTransfer()
    transfer.items.add(new File([await (await fetch(url)).blob()], 'clip.mp4', {type: 'video/mp4'}))
    const at = {bubbles: true, cancelable: true, dataTransfer: transfer, clientX: 900, clientY: 900}
    document.querySelector('#graph-canvas').dispatchEvent(new DragEvent('drop', at))
}"""


def test_the_endpoints_url_is_one_of_comfyuis_settings(page: Page, server: ComfyUI) -> None:
    page.evaluate("() => app.extensionManager.setting.set('Wan22.LLM.URL', 'http://127.0.0.1:9/v1')")
    assert server.get("/settings")["Wan22.LLM.URL"] == "http://127.0.0.1:9/v1"
    page.evaluate("() => app.extensionManager.setting.set('Wan22.LLM.URL', '')")


def open_templates(page: Page) -> None:
    page.get_by_text("Templates", exact=True).first.click()
    page.get_by_role("dialog").get_by_text(PACK_FOLDER, exact=True).first.click()


def open_template(page: Page, name: str) -> None:
    open_templates(page)
    page.get_by_test_id(f"template-workflow-{name}").click()
    page.wait_for_function("name => app.extensionManager.workflow.activeWorkflow.path.includes(name)", arg=name)
    wait_for_nodes(page, len(workflows.shipped(name)["nodes"]))
    page.wait_for_function("() => !document.querySelector('[role=dialog]')")


def widget_values(workflow: dict[str, Any]) -> dict[int, Any]:
    return {node["id"]: node.get("widgets_values") or [] for node in workflow["nodes"]}


def contents(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in node.items() if name not in MEASURED_BY_NODES_2} for node in workflow["nodes"]]


@pytest.mark.parametrize("canvas", [False], ids=["classic"], indirect=True)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_workflow_opens_and_stays_itself(canvas: Page, object_info: dict[str, Any], path: Path) -> None:
    """How it looks, on either canvas: test_layout."""
    if path.stem == "modular":  # others are opened from the templates below, and all of them have a picture there
        open_template(canvas, path.stem)
    else:
        open_workflow(canvas, workflows.shipped(path.stem))
    assert canvas.evaluate(BROKEN_NODES) == 0
    shipped = workflows.shipped(path.stem)
    assert sent_prompt(canvas) == workflows.to_prompt(shipped, object_info)
    saved = canvas.evaluate(SAVED)
    for node_id, values in widget_values(shipped).items():
        assert widget_values(saved)[node_id][: len(values)] == values  # core's nodes grow widgets
    assert sorted(saved["links"]) == sorted(shipped["links"])
    open_workflow(canvas, saved)
    assert contents(canvas.evaluate(SAVED)) == contents(saved)


def without_seed(prompt: Prompt) -> Prompt:
    """The front end draws another one after each run."""
    kept = {node_id: {name: value for name, value in node["inputs"].items() if name != "seed"} for node_id, node in prompt.items()}
    return {node_id: {"class_type": node["class_type"], "inputs": kept[node_id]} for node_id, node in prompt.items()}


def reports(page: Page) -> dict[str, str]:
    """What stands in view on each node that tells how it went."""
    return page.evaluate("""() => Object.fromEntries(app.graph.nodes.flatMap(node => (node.widgets ?? [])
        .filter(widget => widget.element?.classList?.contains('wan22-report')).map(widget => [node.type, widget.element.innerText])))""")


@pytest.mark.parametrize("canvas", [True], ids=["nodes 2.0"], indirect=True)
def test_a_run_tells_and_plays_on_the_nodes_and_its_file_brings_the_workflow_back(helper_models: None, canvas: Page, server: ComfyUI,
                                                                                  request: pytest.FixtureRequest) -> None:
    """With every node of the pack that tells something; that each workflow runs, and is sent as it runs, is tested without a browser and above, and
    what the classic canvas shows of a run in test_layout."""
    name, folder = "full", f"browser_{request.node.callspec.id}"
    server.free()  # for a cached node of a new server says nothing
    with drawing_every(canvas, 0):  # nodes that grow while the view moves are displaced by the Nodes 2.0 of 1.32.9, the more the slower it draws
        open_template(canvas, name)
        set_widgets(canvas, {**TINY, "filename_prefix": f"{folder}/clip"})
        canvas.evaluate("async () => await app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        wait_for_drawing(canvas, 60)
    before = without_seed(sent_prompt(canvas))
    with drawing_every(canvas, 1000):  # so that the server has the machine to itself
        canvas.evaluate("async () => await app.queuePrompt(0)")
        canvas.wait_for_function(PLAYING)
    screenshot(canvas, f"{name}_ran_{request.node.callspec.id}")
    canvas.wait_for_function(PREVIEW, arg=TINY["width"] // 8)
    texts = reports(canvas)
    assert {node: texts[node][: len(words)] for node, words in REPORTS.items()} == REPORTS
    canvas.wait_for_function(NONE_COVERED)
    (saved,) = (server.base / "output" / folder).glob("*.mp4")
    assert videos.facts(saved).frames == 33
    assert canvas.evaluate("() => document.querySelector('video').duration") == pytest.approx(33 / 32, abs=0.01)
    canvas.evaluate("() => app.graph.clear()")
    canvas.evaluate(DROP_FILE, f"/view?filename={saved.name}&subfolder={folder}&type=output")
    wait_for_nodes(canvas, len(workflows.shipped(name)["nodes"]))
    assert without_seed(sent_prompt(canvas)) == before
    canvas.evaluate("async () => await app.queuePrompt(0)")
    canvas.wait_for_function(TELLING, arg={node: texts[node] for node in REPORTS if node != "Wan22CheckVideo"})  # which tells while the video streams


def test_the_file_name_is_filled_in_and_prompts_are_sent_as_they_stand(canvas: Page) -> None:
    """As core's Save Video beside it does the one; what the front end calls dynamic prompts would be another text than the API's."""
    open_template(canvas, "text_to_video")
    words, name = "a {red|blue} fox // not a comment", "%date:yyyy%/%Wan22Sampler.steps%_%nobody.steps%_%width%"
    set_widgets(canvas, {"filename_prefix": name, "prompt": words, "negative_prompt": words})
    canvas.evaluate("""name => {
        const core = LiteGraph.createNode('SaveVideo')
        core.widgets.find(widget => widget.name === 'filename_prefix').value = name
        app.graph.add(core)
    }""", name)
    prompt = sent_prompt(canvas)
    ours, core = (workflows.node_of(prompt, node)["filename_prefix"] for node in ("Wan22SaveVideo", "SaveVideo"))
    assert ours == core and "%date" not in ours and "%Wan22Sampler" not in ours and ours.endswith("_%nobody.steps%_%width%")
    encode = workflows.node_of(prompt, "Wan22TextEncode")
    assert (encode["prompt"], encode["negative_prompt"]) == (words, words)


def test_every_template_has_its_picture(page: Page) -> None:
    open_templates(page)
    for path in FILES:
        card = page.get_by_test_id(f"template-workflow-{path.stem}")
        card.scroll_into_view_if_needed()  # or it has none
        picture = card.locator("img").first
        page.wait_for_function("picture => picture.naturalWidth === 512", arg=picture.element_handle())


def test_help_shows_the_node_and_an_example(canvas: Page) -> None:
    open_template(canvas, "text_to_video")
    canvas.evaluate("() => { app.canvas.selectNode(app.graph.nodes.find(node => node.type === 'Wan22Sampler')); app.canvas.setDirty(true, true) }")
    canvas.get_by_test_id("info-button").click()
    canvas.get_by_text("Example.", exact=True).first.wait_for()
    picture = canvas.locator("img[src$='Wan22Sampler.png']").first.element_handle()
    canvas.wait_for_function("picture => picture.naturalWidth > 300", arg=picture)
