"""The blueprint in the real front end: one node with the endpoint's parameters, and the same prompt as a request to the API makes."""

import base64
import io
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page
from wan22.api.blueprint import Blueprint
from wan22.api.contract import LoRAWeight

import tiny_weights
import videos
import workflows
from comfyui import ROOT, ComfyUI, Prompt
from front_end import expect_bars, sent_prompt, set_widgets, wait_for_drawing, wait_for_nodes
from hosted_contract import CHOICES, NUMBERS, SWITCHES

NAME = "Wan 2.2 Text to Video"
FILE = ROOT / "subgraphs" / f"{NAME}.json"
SEED = "app.graph.nodes[0].widgets.find(widget => widget.name.endsWith('seed')).value"
SMALL = {"resolution": "480p", "num_frames": 17, "num_inference_steps": 2, "interpolator_model": "rife", "prompt": "a fox"}
OTHER_VALUES: dict[str, Any] = {
    "prompt": "two cats", "negative_prompt": "rain", **{name: number.high for name, number in NUMBERS.items() if name != "seed"},
    **{name: next(value for value in choice.values if value != choice.default) for name, choice in CHOICES.items()},
    **{name: not default for name, default in SWITCHES.items()}}
LORAS = [(name, LoRAWeight(path="any", scale=scale, transformer=transformer)) for name, scale, transformer in (
    (tiny_weights.LORAS[0].format("high"), 0.5, "both"), (tiny_weights.LORAS[1].format("low"), 2.0, "low"))]
RED, BLUE = [255, 0, 0], [0, 0, 255]
MANY = 500  # pixels
SHOW_CLIP = """image => {
    const sampler = app.graph.nodes[0].subgraph.nodes.find(node => node.type === 'Wan22Sampler')
    app.api.dispatchCustomEvent('wan22.preview', {node: `${app.graph.nodes[0].id}:${sampler.id}`, prompt: 'a', image})
}"""
ADD_LORAS = """loras => {
    let above = null
    for (const values of loras) {
        const node = LiteGraph.createNode('Wan22LoRA')
        app.graph.add(node)
        for (const widget of node.widgets) if (widget.name in values) widget.value = values[widget.name]
        if (above) above.connect(0, node, node.inputs.findIndex(input => input.name === 'stack'))
        above = node
    }
    const blueprint = app.graph.nodes.find(node => node.subgraph)
    above.connect(0, blueprint, blueprint.inputs.findIndex(input => input.name === 'loras'))
}"""


def put_down_blueprint(page: Page) -> None:
    """By the search, as a person does."""
    page.keyboard.press("n")
    page.locator("input[placeholder*='Search']").first.fill(NAME)
    page.get_by_text(NAME, exact=True).last.click()
    wait_for_drawing(page, 8)
    page.mouse.move(900, 400)
    wait_for_drawing(page, 8)
    page.mouse.click(900, 400)
    wait_for_nodes(page, 1)
    wait_for_drawing(page, 8)


def without_ids(prompt: Prompt) -> list[tuple[str, dict[str, Any]]]:
    """Each node with the nodes that it is linked to in place of their ids, in an order that does not depend on these."""
    def value(linked: Any) -> Any:
        if isinstance(linked, list) and len(linked) == 2 and str(linked[0]) in prompt:
            return (described(str(linked[0])), linked[1])
        return linked

    def described(node_id: str) -> tuple[str, dict[str, Any]]:
        node = prompt[node_id]
        return node["class_type"], {name: value(linked) for name, linked in sorted(node["inputs"].items())}

    return sorted((described(node_id) for node_id in prompt), key=repr)


@pytest.mark.parametrize(("values", "loras"), [({}, []), (OTHER_VALUES, LORAS)], ids=["as it is", "all changed"])
def test_a_request_to_the_api_becomes_the_prompt_that_the_front_end_sends(canvas: Page, values: dict[str, Any],
                                                                          loras: list[tuple[str, LoRAWeight]]) -> None:
    put_down_blueprint(canvas)
    set_widgets(canvas, values)
    if loras:
        canvas.evaluate(ADD_LORAS, [{"lora": name, "scale": weight.scale, "transformer": weight.transformer} for name, weight in loras])
    sent = sent_prompt(canvas)
    prefix = workflows.node_of(sent, "Wan22SaveVideo")["filename_prefix"]
    assert without_ids(sent) == without_ids(Blueprint.read(FILE).prompt(values, loras, 0, prefix))


def test_the_blueprint_runs_as_one_node(page: Page, server: ComfyUI) -> None:
    put_down_blueprint(page)
    set_widgets(page, SMALL)
    prompt = sent_prompt(page)
    workflows.node_of(prompt, "Wan22EmptyLatent").update(resolution="custom", width=64, height=64)
    (video,) = server.saved_videos(server.run(prompt))
    assert videos.facts(video).frames == 33


def test_the_clip_that_is_made_inside_moves_on_the_blueprint(canvas: Page) -> None:
    put_down_blueprint(canvas)
    canvas.evaluate(SHOW_CLIP, moving_picture([RED, BLUE], 0.2))
    canvas.evaluate("async () => await app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    wait_for_drawing(canvas, 30)
    canvas.evaluate("() => { app.canvas.ds.changeScale(0.6 * app.canvas.ds.scale); app.canvas.setDirty(true, true) }")  # there is room below the node
    see_colours(canvas, [RED, BLUE])
    canvas.evaluate("() => app.canvas.openSubgraph(app.graph.nodes[0].subgraph, app.graph.nodes[0])")
    assert canvas.evaluate("() => !document.querySelector('.wan22-preview').src")
    canvas.evaluate("() => app.canvas.setGraph(app.rootGraph)")


def see_colours(page: Page, colours: list[list[int]]) -> None:
    """Wait until each of them was somewhere on the page, on more than a few pixels."""
    missing = [tuple(colour) for colour in colours]
    while missing:
        shown = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        counts = {colour: count for count, colour in shown.getcolors(shown.width * shown.height) or []}
        missing = [colour for colour in missing if counts.get(colour, 0) < MANY]


def moving_picture(colours: list[list[int]], seconds: float) -> str:
    frames = [Image.new("RGB", (64, 48), tuple(colour)) for colour in colours]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], duration=round(1000 * seconds), loop=0, lossless=True)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def test_inside_the_blueprint_the_schedule_is_that_of_its_widgets(canvas: Page) -> None:
    put_down_blueprint(canvas)
    canvas.evaluate("() => app.canvas.openSubgraph(app.graph.nodes[0].subgraph, app.graph.nodes[0])")
    expect_bars(canvas, 12, 15)
    canvas.evaluate("() => app.canvas.setGraph(app.rootGraph)")
    set_widgets(canvas, {"num_inference_steps": 8})
    canvas.evaluate("() => app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")  # as the front end does after a click
    canvas.evaluate("() => app.canvas.openSubgraph(app.rootGraph.nodes[0].subgraph, app.rootGraph.nodes[0])")
    expect_bars(canvas, 4, 4)
    canvas.evaluate("() => app.canvas.setGraph(app.rootGraph)")


def test_another_seed_is_drawn_after_each_run_of_the_blueprint(page: Page, server: ComfyUI) -> None:
    put_down_blueprint(page)
    assert workflows.node_of(sent_prompt(page), "Wan22Sampler")["seed"] == 0
    page.evaluate("() => app.queuePrompt(0)")
    page.wait_for_function(f"() => {SEED} !== 0")
    server.post("/interrupt")
    server.post("/queue", {"clear": True})
    assert workflows.node_of(sent_prompt(page), "Wan22Sampler")["seed"] == page.evaluate(f"() => {SEED}")
