"""A new user's way: the template browser, the blueprint, the help of a node, and a run, on the classic canvas and in Nodes 2.0."""

from typing import Any

import pytest
from playwright.sync_api import Page

import videos
import workflows
from comfyui import PACK_FOLDER, ComfyUI
from front_end import expect_bars, open_workflow, screenshot, sent_prompt, set_widgets, wait_for_nodes

FILES = workflows.workflow_files()
BROKEN_NODES = "() => app.graph.nodes.filter(node => node.has_errors || !node.constructor.nodeData && !node.isVirtualNode && !node.subgraph).length"
COVERED = """() => {
    const boxes = [...document.querySelectorAll('[data-node-id]')].map(element => element.getBoundingClientRect())
    const over = (one, two) => one.left < two.right && two.left < one.right && one.top < two.bottom && two.top < one.bottom
    return boxes.flatMap((one, index) => boxes.slice(0, index).filter(two => over(one, two)).map(two => [one.x, one.y, two.x, two.y]))
}"""  # nodes that are drawn as elements, in Nodes 2.0
TINY = {"model": "rife", "resolution": "custom", "width": 64, "height": 64, "num_frames": 17, "steps": 2, "enabled": True, "when_unsafe": "blur"}
REPORTS = {"Wan22Sampler": "2 steps: ", "Wan22ApplyLoRAs": "- high: ", "Wan22CheckPrompt": "unsafe 0.", "Wan22CheckVideo": "17 frames looked at"}
SEED = "app.graph.nodes[0].widgets.find(widget => widget.name.endsWith('seed')).value"
SMALL = {"resolution": "480p", "num_frames": 17, "num_inference_steps": 2, "interpolator_model": "rife", "prompt": "a fox"}


@pytest.fixture(autouse=True)
def idle(server: ComfyUI) -> None:
    server.post("/queue", {"clear": True})


def open_templates(page: Page) -> None:
    page.get_by_text("Templates", exact=True).first.click()
    page.get_by_role("dialog").get_by_text(PACK_FOLDER, exact=True).first.click()


def open_template(page: Page, name: str) -> None:
    open_templates(page)
    page.get_by_test_id(f"template-workflow-{name}").click()
    page.wait_for_function("name => app.extensionManager.workflow.activeWorkflow.path.includes(name)", arg=name)
    wait_for_nodes(page, len(workflows.shipped(name)["nodes"]))


SAVED = "() => JSON.parse(JSON.stringify(app.graph.serialize()))"
MEASURED_BY_NODES_2 = ("pos", "size")


def widget_values(workflow: dict[str, Any]) -> dict[int, Any]:
    return {node["id"]: node.get("widgets_values") or [] for node in workflow["nodes"]}


def test_every_workflow_opens_from_the_template_browser_and_stays_itself(canvas: Page, object_info: dict[str, Any],
                                                                         request: pytest.FixtureRequest) -> None:
    for path in FILES:
        open_template(canvas, path.stem)
        assert canvas.evaluate(BROKEN_NODES) == 0, path.stem
        canvas.wait_for_function("() => !document.querySelector('[role=dialog]')", timeout=10_000)
        screenshot(canvas, f"{path.stem}_{request.node.callspec.id}")
        assert canvas.evaluate(COVERED) == [], path.stem
        shipped = workflows.shipped(path.stem)
        assert sent_prompt(canvas) == workflows.to_prompt(shipped, object_info)
        saved = canvas.evaluate(SAVED)
        for node_id, values in widget_values(shipped).items():
            assert widget_values(saved)[node_id][: len(values)] == values  # core's nodes grow widgets
        assert sorted(saved["links"]) == sorted(shipped["links"])
        open_workflow(canvas, saved)
        assert contents(canvas.evaluate(SAVED)) == contents(saved)


def contents(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in node.items() if name not in MEASURED_BY_NODES_2} for node in workflow["nodes"]]


PLAYING = """name => [...document.querySelectorAll('video')].some(
    video => decodeURIComponent(video.currentSrc).includes(`${name}_00001`) && video.readyState >= 2 && video.videoWidth === 64)"""


def reports(page: Page) -> dict[str, str]:
    """What stands in view on each node that tells how it went."""
    return page.evaluate("""() => Object.fromEntries(app.graph.nodes.flatMap(node => (node.widgets ?? [])
        .filter(widget => widget.element?.classList?.contains('wan22-report')).map(widget => [node.type, widget.element.innerText])))""")


def test_every_workflow_runs_and_tells_and_plays_on_its_nodes(helper_models: None, canvas: Page, server: ComfyUI,
                                                              request: pytest.FixtureRequest) -> None:
    nodes_2 = request.node.callspec.id == "nodes 2.0"
    server.post("/free", {"free_memory": True})  # for a cached node says nothing
    opened, heard = set(), set()
    for name in (path.stem for path in FILES if path.stem != "core_template_mix"):  # core's loader knows UMT5-XXL alone
        if nodes_2 or name == "lora_pair":
            open_template(canvas, name)
            set_widgets(canvas, {**TINY, "filename_prefix": f"templates_{request.node.callspec.id}/{name}"})
            canvas.evaluate("async () => await app.extensionManager.command.execute('Comfy.Canvas.FitView')")
            canvas.wait_for_timeout(500)  # nodes that grow while the view moves are displaced by the Nodes 2.0 of 1.32.9
            canvas.evaluate("async () => await app.queuePrompt(0)")
            canvas.wait_for_function(PLAYING, arg=name, timeout=60_000)
            screenshot(canvas, f"{name}_ran_{request.node.callspec.id}")
            told = reports(canvas)
            assert all(told[node].startswith(words) for node, words in REPORTS.items() if told.get(node)), told
            opened |= {node["type"] for node in workflows.shipped(name)["nodes"]}
            heard |= {node for node, words in told.items() if words}
            assert canvas.evaluate(COVERED) == [], name
    assert heard >= opened & set(REPORTS)


def test_every_template_has_its_picture(page: Page) -> None:
    open_templates(page)
    for path in FILES:
        picture = page.get_by_test_id(f"template-workflow-{path.stem}").locator("img").first
        picture.scroll_into_view_if_needed()
        page.wait_for_function("picture => picture.naturalWidth === 512", arg=picture.element_handle(), timeout=10_000)


def test_help_shows_the_node_and_an_example(canvas: Page) -> None:
    open_template(canvas, "text_to_video")
    canvas.evaluate("() => { app.canvas.selectNode(app.graph.nodes.find(node => node.type === 'Wan22Sampler')); app.canvas.setDirty(true, true) }")
    canvas.get_by_test_id("info-button").click()
    canvas.get_by_text("Example.", exact=True).first.wait_for()
    picture = canvas.locator("img[src$='Wan22Sampler.png']").first.element_handle()
    canvas.wait_for_function("picture => picture.naturalWidth > 300", arg=picture)


def put_down_blueprint(page: Page) -> None:
    page.evaluate("() => app.graph.clear()")
    page.keyboard.press("n")
    page.locator("input[placeholder*='Search']").first.fill("Wan 2.2 Text to Video")
    page.get_by_text("Wan 2.2 Text to Video", exact=True).last.click()
    page.wait_for_timeout(500)
    page.mouse.move(900, 400)
    page.wait_for_timeout(500)
    page.mouse.click(900, 400)
    wait_for_nodes(page, 1)
    page.wait_for_timeout(500)


def test_the_blueprint_runs_as_one_node(canvas: Page, server: ComfyUI) -> None:
    put_down_blueprint(canvas)
    set_widgets(canvas, SMALL)
    prompt = sent_prompt(canvas)
    inputs = {node["class_type"]: node["inputs"] for node in prompt.values()}
    assert inputs["Wan22ExpandPrompt"]["prompt"] == "a fox"
    assert (inputs["Wan22Sampler"]["steps"], inputs["Wan22EmptyLatent"]["num_frames"], inputs["Wan22InterpolatorLoader"]["model"]) == (2, 17, "rife")
    inputs["Wan22EmptyLatent"].update(resolution="custom", width=64, height=64)
    (video,) = server.saved_videos(server.run(prompt))
    assert videos.facts(video).frames == 33


def test_inside_the_blueprint_the_schedule_is_that_of_its_widgets(canvas: Page) -> None:
    put_down_blueprint(canvas)
    canvas.evaluate("() => app.canvas.openSubgraph(app.graph.nodes[0].subgraph, app.graph.nodes[0])")
    expect_bars(canvas, 12, 15)
    canvas.evaluate("() => app.canvas.setGraph(app.rootGraph)")
    set_widgets(canvas, {"num_inference_steps": 8})
    canvas.evaluate("() => app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")  # as the front end does after a click
    canvas.evaluate("() => app.canvas.openSubgraph(app.rootGraph.nodes[0].subgraph, app.rootGraph.nodes[0])")
    expect_bars(canvas, 4, 4)


def test_another_seed_is_drawn_after_each_run_of_the_blueprint(page: Page, server: ComfyUI) -> None:
    put_down_blueprint(page)
    assert workflows.node_of(sent_prompt(page), "Wan22Sampler")["seed"] == 0
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function(f"() => {SEED} !== 0")
    server.post("/interrupt")
    server.post("/queue", {"clear": True})
    assert workflows.node_of(sent_prompt(page), "Wan22Sampler")["seed"] == page.evaluate(f"() => {SEED}")
