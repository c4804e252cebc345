"""The picture of the schedule on Wan 2.2 Sampler, and the texts on other nodes, on the classic canvas and in Nodes 2.0."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

import tiny_weights
import workflows
from comfyui import PACK_FOLDER, ComfyUI
from front_end import expect_bars, open_front_end, open_workflow, sent_prompt, wait_for_drawing

SET = """([type, name, value]) => {
    const widget = app.graph.nodes.find(node => node.type === type).widgets.find(widget => widget.name === name)
    widget.value = value
    widget.callback?.(value)
}"""
SAMPLER = "app.graph.nodes.find(node => node.type === 'Wan22Sampler')"
REPORT = "\\n".join(f"- low: lora_{index}.safetensors (diffusers), rank 32, effective scale 1, 400 of 400 tensors applied" for index in range(4))


LORA = "app.graph.nodes.find(node => node.type === 'Wan22LoRA')"


@pytest.fixture
def text_to_video(canvas: Page) -> Page:
    open_workflow(canvas, workflows.shipped("text_to_video"))
    return canvas


def words(page: Page) -> str:
    return page.locator(".wan22-schedule").inner_text()


def test_the_plot_shows_the_schedule_and_follows_the_widgets(text_to_video: Page) -> None:
    expect_bars(text_to_video, 12, 15, forecast=13)
    assert words(text_to_video).split("\u25a0 ")[1:] == ["12 high + ", "15 low, 28 of 54 calls (faded: forecast)"]
    heights = [float(height) for height in text_to_video.eval_on_selector_all(
        ".wan22-schedule rect", "bars => bars.map(bar => bar.getAttribute('height'))")]
    assert heights == sorted(heights, reverse=True) and heights[0] == pytest.approx(1, abs=0.001)
    text_to_video.evaluate(SET, ["Wan22Sampler", "steps", 4])
    expect_bars(text_to_video, 2, 2, forecast=0)
    assert words(text_to_video).endswith("2 low, 8 calls")
    text_to_video.evaluate(SET, ["Wan22Sampler", "boundary", 0])
    expect_bars(text_to_video, 4, 0)


def ticks(page: Page) -> list[tuple[str, str]]:
    """The step of each tick and its tooltip."""
    found = page.eval_on_selector_all(".wan22-schedule [data-step]", "ticks => ticks.map(tick => [tick.dataset.step, tick.textContent])")
    return [(step, tooltip) for step, tooltip in found]


def test_an_opening_and_loras_by_step_are_ticks_and_outlive_a_save(canvas: Page, object_info: dict[str, Any]) -> None:
    workflow = workflows.shipped("lightning_with_motion")
    high, low = (name.format(side) for name in tiny_weights.LORAS[:1] for side in ("high", "low"))
    open_workflow(canvas, workflow)
    expect_bars(canvas, 3, 3)
    canvas.wait_for_selector(".wan22-schedule [data-step]", state="attached")
    assert ticks(canvas) == [("3", f"from step 3: guidance 1, with {high}")]
    assert words(canvas).endswith("3 low, 8 calls; from step 3 guidance 1, with a LoRA")
    canvas.evaluate(SET, ["Wan22Sampler", "opening_steps", 1])
    canvas.evaluate(f"() => {{ {LORA}.mode = 4; app.graph.change?.() }}")
    canvas.evaluate(SET, ["Wan22LoRA", "last_step", 5])
    canvas.wait_for_function("() => document.querySelectorAll('.wan22-schedule [data-step]').length === 2")
    assert [step for step, _ in ticks(canvas)] == ["2", "3"]  # the pair comes with its other file
    open_workflow(canvas, canvas.evaluate("() => JSON.parse(JSON.stringify(app.graph.serialize()))"))
    sent = sent_prompt(canvas)
    (sampler,) = (node["inputs"] for node in sent.values() if node["class_type"] == "Wan22Sampler")
    assert (sampler["opening_steps"], sampler["opening_guidance"]) == (1, 3.5)
    assert [node["inputs"]["first_step"] for node in sent.values() if node["class_type"] == "Wan22LoRA"] == [3]
    assert low in {node["inputs"].get("lora") for node in sent.values()}


def test_loras_of_a_saved_stack_are_in_the_picture(canvas: Page, models: Path) -> None:
    saved = {"file": "style.safetensors", "sha256": "0" * 64, "scale": 1.0, "transformer": "low", "first_step": 5, "last_step": 0}
    path = models / "loras" / "stacks" / "in_the_picture.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"version": 1, "loras": [saved]}))
    open_workflow(canvas, workflows.shipped("lightning_with_motion"))
    canvas.evaluate("""name => {
        const stack = LiteGraph.createNode('Wan22LoRAStack')
        app.graph.add(stack)
        stack.widgets[0].value = name
        const [first] = app.graph.nodes.filter(node => node.type === 'Wan22LoRA')
        stack.connect(0, first, first.inputs.findIndex(input => input.name === 'stack'))
    }""", path.name)
    canvas.evaluate(SET, ["Wan22Sampler", "opening_steps", 1])
    canvas.wait_for_function("() => document.querySelectorAll('.wan22-schedule [data-step]').length === 3")
    path.unlink()
    assert ticks(canvas)[-1] == ("5", "from step 5: with style.safetensors")


def test_a_workflow_from_before_the_opening_runs_without_one(canvas: Page, object_info: dict[str, Any]) -> None:
    workflow = workflows.shipped("lightning_4_steps")
    expected = workflows.to_prompt(workflow, object_info)
    for node in workflow["nodes"]:
        new = [slot for slot in node["inputs"] if slot["name"] in ("opening_steps", "opening_guidance", "first_step", "last_step")]
        node["inputs"] = [slot for slot in node["inputs"] if slot not in new]
        node["widgets_values"] = node["widgets_values"][: -len(new)] if new else node.get("widgets_values", [])
    open_workflow(canvas, workflow)
    expect_bars(canvas, 2, 2)
    assert sent_prompt(canvas) == expected


def test_picture_clip_and_text_stand_in_one_order_whatever_loads_first(text_to_video: Page) -> None:
    names = text_to_video.evaluate(f"() => {SAMPLER}.widgets.map(widget => widget.name)")
    assert names[-3:] == ["schedule_plot", "moving_preview", "$$node-text-preview"]


def test_after_an_undo_the_plot_is_that_of_the_restored_widgets(text_to_video: Page) -> None:
    expect_bars(text_to_video, 12, 15)
    text_to_video.evaluate(SET, ["Wan22Sampler", "steps", 8])
    expect_bars(text_to_video, 4, 4)
    text_to_video.evaluate("() => app.extensionManager.workflow.activeWorkflow.changeTracker.checkState()")
    text_to_video.evaluate("async () => await app.extensionManager.workflow.activeWorkflow.changeTracker.undo()")
    expect_bars(text_to_video, 12, 15)
    text_to_video.evaluate(SET, ["Wan22Sampler", "steps", 4])
    expect_bars(text_to_video, 2, 2)


@pytest.fixture
def restored(page: Page) -> Iterator[Page]:
    """For tests that put something of their own in place of the front end's connection to the server."""
    page.evaluate("() => { window.kept = {ask: app.api.fetchApi, listen: app.api.addEventListener} }")
    yield page
    page.evaluate("() => Object.assign(app.api, {fetchApi: window.kept.ask, addEventListener: window.kept.listen})")


def test_no_listener_is_left_behind(restored: Page) -> None:
    restored.evaluate("""() => {
        window.listening = 0
        app.api.addEventListener = function (event, ...rest) {
            if (event === 'progress_text' || event === 'graphChanged') window.listening += 1
            return window.kept.listen.call(this, event, ...rest)
        }
    }""")
    for _ in range(3):
        open_workflow(restored, workflows.shipped("text_to_video"))
    assert restored.evaluate("() => window.listening") == 0


def test_a_wrong_value_is_told_and_a_right_one_mends_it(text_to_video: Page) -> None:
    expect_bars(text_to_video, 12, 15)
    text_to_video.evaluate(SET, ["Wan22Sampler", "solver", "heun"])
    text_to_video.wait_for_function("() => document.querySelector('.wan22-schedule').innerText.startsWith('solver is')")
    assert words(text_to_video) == "solver is 'heun'; choose one of: unipc, dpm++, euler."
    text_to_video.evaluate(SET, ["Wan22Sampler", "solver", "dpm++"])
    expect_bars(text_to_video, 12, 15)


def test_only_the_last_answer_is_drawn(restored: Page, text_to_video: Page) -> None:
    """The answer for 8 steps comes, in order, when that for 4 is on the canvas."""
    expect_bars(text_to_video, 12, 15)
    text_to_video.evaluate("""() => {
        app.api.fetchApi = async (route, ...rest) => {
            const answer = await window.kept.ask.call(app.api, route, ...rest)
            if (route.includes('steps=8&')) await new Promise(done => { window.letGo = done })
            return answer
        }
    }""")
    text_to_video.evaluate(SET, ["Wan22Sampler", "steps", 8])
    text_to_video.wait_for_function("() => window.letGo")
    text_to_video.evaluate(SET, ["Wan22Sampler", "steps", 4])
    expect_bars(text_to_video, 2, 2)
    text_to_video.evaluate("() => window.letGo()")
    wait_for_drawing(text_to_video)
    expect_bars(text_to_video, 2, 2)


def test_a_loaded_workflow_and_linked_settings(text_to_video: Page) -> None:
    workflow = workflows.shipped("text_to_video")
    (sampler,) = (node for node in workflow["nodes"] if node["type"] == "Wan22Sampler")
    sampler["widgets_values"][2] = 40
    open_workflow(text_to_video, workflow)
    expect_bars(text_to_video, 17, 23)
    text_to_video.evaluate(f"""() => {{
        const source = LiteGraph.createNode('PrimitiveInt')
        app.graph.add(source)
        source.widgets[0].value = 8
        source.connect(0, {SAMPLER}, {SAMPLER}.inputs.findIndex(input => input.name === 'steps'))
    }}""")
    expect_bars(text_to_video, 4, 4)
    text_to_video.evaluate(f"""() => {{
        const latent = app.graph.nodes.find(node => node.type === 'Wan22EmptyLatent')
        latent.connect(1, {SAMPLER}, {SAMPLER}.inputs.findIndex(input => input.name === 'steps'))
    }}""")
    text_to_video.wait_for_function("() => document.querySelector('.wan22-schedule').innerText.endsWith('steps linked.')")


def test_nothing_of_the_plot_is_saved_or_sent(text_to_video: Page, object_info: dict[str, Any]) -> None:
    expect_bars(text_to_video, 12, 15)
    workflow = workflows.shipped("text_to_video")
    (sampler,) = (node for node in workflow["nodes"] if node["type"] == "Wan22Sampler")
    assert text_to_video.evaluate(f"() => {SAMPLER}.serialize().widgets_values") == sampler["widgets_values"]
    assert sent_prompt(text_to_video) == workflows.to_prompt(workflow, object_info)
    text_to_video.evaluate(f"() => {{ {SAMPLER}.addWidget('text', 'of another extension', 'x', () => {{}}) }}")
    assert text_to_video.evaluate(f"() => {SAMPLER}.serialize().widgets_values") == [*sampler["widgets_values"], "x"]


def test_without_the_scripts_the_workflow_is_the_same(chromium: Browser, server: ComfyUI, object_info: dict[str, Any]) -> None:
    page = open_front_end(chromium, server.url, lambda page: page.route(f"**/extensions/{PACK_FOLDER}/**", lambda route: route.abort()))
    open_workflow(page, workflows.shipped("text_to_video"))
    assert page.locator(".wan22-schedule").count() == 0
    assert sent_prompt(page) == workflows.to_prompt(workflows.shipped("text_to_video"), object_info)
    page.close()


def test_a_long_report_has_room_on_its_node(text_to_video: Page) -> None:
    text_to_video.evaluate("""() => {
        app.graph.clear()
        const node = LiteGraph.createNode('Wan22ApplyLoRAs')
        app.graph.add(node)
        app.canvas.ds.offset = [300, 200]
        app.canvas.setDirty(true, true)
    }""")
    wait_for_drawing(text_to_video, 6)
    text_to_video.evaluate(f"() => app.api.dispatchCustomEvent('progress_text', {{nodeId: String(app.graph.nodes[0].id), text: `{REPORT}`}})")
    text = text_to_video.get_by_text("lora_3.safetensors").last
    text.wait_for()
    wait_for_drawing(text_to_video, 10)
    box = text.bounding_box()
    assert box is not None and box["width"] >= 200
    bottom = text_to_video.evaluate("() => (app.graph.nodes[0].pos[1] + app.graph.nodes[0].size[1] + app.canvas.ds.offset[1]) * app.canvas.ds.scale")
    top_of_canvas = text_to_video.evaluate("() => app.canvas.canvas.getBoundingClientRect().top")
    assert box["y"] + box["height"] <= bottom + top_of_canvas
    assert text_to_video.eval_on_selector(".wan22-report", "report => report.scrollHeight <= report.clientHeight")
    assert text_to_video.evaluate("() => app.graph.nodes[0].serialize().widgets_values ?? []") in (
        ["on the fly"], ["on the fly", REPORT.replace("\\n", "\n")])
