"""Where nodes and links lie in the shipped workflows and in the blueprint, with what a run puts on the nodes, on both canvases."""

import base64
import json
from typing import Any

import av
import cv2
import numpy as np
import pytest
from playwright.sync_api import Page

import workflows
from comfyui import ROOT, ComfyUI
from front_end import drawing_every, open_workflow

BLUEPRINT = ROOT / "subgraphs" / "Wan 2.2 Text to Video.json"
PICTURE = np.full((120, 208, 3), 127, np.uint8)  # 16:9, as the usual size is
TEXTS = {
    "Wan22ExpertLoader": "Warning: high_noise.safetensors is of 8 bit and low_noise.safetensors of 16 bit, which is fine but rare. Is it meant?",
    "Wan22ExpandPrompt": "A red fox trots along a snowy path in a quiet forest at dawn. " * 6,
    "Wan22CheckPrompt": "Nothing unsafe found: the prompt scores 0.3 of 1 (nsfw 0.300, 'naked' 0.300), the threshold is 0.5.",
    "Wan22ApplyLoRAs": "\n".join(f"- {expert}: wan2.2_t2v_A14b_{expert}_noise_lora_rank64_lightx2v_4step_1217.safetensors (diffusers), rank 64, "
                                 "effective scale 1, 400 of 400 tensors applied" for expert in ("high", "low")),
    "Wan22Sampler": "27 steps: 12 high (t 999..878) + 15 low (t 861..161), guidance 3.5 for 2 steps, then 1.0 / 1.0, 28 model calls of 54, 13 steps "
                    "forecast (regular)",
    "Wan22CheckVideo": "81 frames looked at, nothing unsafe found: the most suspicious is frame 12 with 0.133 of 1 (normal 0.867, nsfw 0.133), "
                       "the threshold is 0.5.",
}
RUN = """([texts, image, filename]) => app.graph.nodes.forEach(({id, type}) => {
    const say = (event, detail) => app.api.dispatchCustomEvent(event, {node: String(id), nodeId: String(id), display_node: String(id), ...detail})
    if (texts[type]) say('progress_text', {text: texts[type]})
    if (type === 'Wan22Sampler') say('wan22.preview', {image})
    if (type.endsWith('SaveVideo')) say('executed', {output: {images: [{filename, subfolder: '', type: 'output'}], animated: [true]}})
})"""
PLAYS = "() => [...document.querySelectorAll('video')].some(video => video.videoWidth)"
WHOLE = "() => { app.canvas.ds.scale = 0.3; app.canvas.ds.offset = [400, 400]; app.canvas.setDirty(true, true) }"
BOXES = """() => {
    const {ds, graph} = app.canvas, page = app.canvas.canvas.getBoundingClientRect(), badge = 20
    return graph.nodes.map(node => {
        const element = LiteGraph.vueNodesMode && document.querySelector(`[data-node-id="${node.id}"]`)
        const [x, y, width, height] = node.boundingRect
        if (!element) return [x, y - badge, x + width, y + height]
        const {left, top, right, bottom} = element.getBoundingClientRect()
        return [left - page.left, top - page.top, right - page.left, bottom - page.top].map((at, index) => at / ds.scale - ds.offset[index % 2])
    })
}"""  # of each node in view, as left, top, right and bottom on the canvas
AT_REST = f"""async () => {{
    for (let before, now; !now || now !== before;) {{
        before = now
        for (let drawn = 0; drawn < 3; drawn++) await new Promise(requestAnimationFrame)
        now = JSON.stringify(({BOXES})().map(box => box.map(Math.round)))
    }}
}}"""
CUT = """() => app.graph.nodes.flatMap(node => (node.widgets ?? []).map(({element}) => [node.type, element]))
    .filter(([, element]) => element?.classList?.contains('wan22-report') && element.scrollHeight > element.clientHeight)
    .map(([type, {scrollHeight, clientHeight}]) => [type, scrollHeight, clientHeight])"""
CROSSED = """reach => {
    const context = document.createElement('canvas').getContext('2d'), {graph} = app.canvas
    context.lineWidth = 2 * reach
    const sockets = node => [
        ...(node.inputs ?? []).map((socket, index) => [socket, node.getInputPos(index)]).filter(([{widget, link}]) => !widget || link != null),
        ...(node.outputs ?? []).map((socket, index) => [socket, node.getOutputPos(index)])]
    return [...graph.links.values()].flatMap(({path, origin_id, target_id}) => graph.nodes.filter(({id}) => id !== origin_id && id !== target_id)
        .flatMap(node => sockets(node).filter(([, at]) => context.isPointInStroke(path, ...at))
            .map(([{name}]) => `${origin_id} to ${target_id} behind ${node.type}.${name}`)))
}"""
GAP = 40  # from a node to the next one below: an error puts 24 pixels there
REACH = 20  # from a link to a socket that is not its own: they look connected below
Box = list[float]


@pytest.fixture
def clip(server: ComfyUI) -> str:
    """The name of a video of 16:9 in the server's output folder."""
    path = server.base / "output" / "layout.mp4"
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=16)
        stream.height, stream.width, stream.pix_fmt = *PICTURE.shape[:2], "yuv420p"
        for frame in (av.VideoFrame.from_ndarray(PICTURE, format="rgb24"), None):
            file.mux(stream.encode(frame))
    return path.name


def close(boxes: list[Box], names: list[str]) -> list[str]:
    """Pairs of which one begins within, or too closely below, the other."""
    return [f"{two} {below[1] - above[3]:.0f} below {one}"
            for one, above in zip(names, boxes, strict=True) for two, below in zip(names, boxes, strict=True)
            if one != two and above[0] < below[2] and below[0] < above[2] and above[1] <= below[1] < above[3] + GAP]


def outgrown(boxes: list[Box], names: list[str], groups: list[Box]) -> list[str]:
    """Nodes that are partly in a group."""
    return [name for name, (left, top, right, bottom) in zip(names, boxes, strict=True) for x, y, width, height in groups
            if left < x + width and x < right and top < y + height and y < bottom
            and not (x <= left and right <= x + width and y <= top and bottom <= y + height)]


def faults(page: Page) -> list[str]:
    page.evaluate(AT_REST)
    names = page.evaluate("() => app.canvas.graph.nodes.map(node => `${node.type} ${node.id}`)")
    groups = page.evaluate("() => app.canvas.graph.groups.map(group => [...group.pos, ...group.size])")
    boxes = page.evaluate(BOXES)
    return close(boxes, names) + outgrown(boxes, names, groups)


def test_after_a_run_nothing_is_covered_cut_or_seems_connected(canvas: Page, clip: str) -> None:
    image = f"data:image/webp;base64,{base64.b64encode(cv2.imencode('.webp', PICTURE)[1].tobytes()).decode()}"
    found: dict[str, Any] = {}
    with drawing_every(canvas, 0):
        for name in (path.stem for path in workflows.workflow_files()):
            open_workflow(canvas, workflow := workflows.shipped(name))
            canvas.evaluate(WHOLE)
            canvas.evaluate(RUN, [TEXTS, image, clip])
            if any(node["type"].endswith("SaveVideo") for node in workflow["nodes"]):
                canvas.wait_for_function(PLAYS)
            found[name] = faults(canvas) + canvas.evaluate(CROSSED, REACH) + canvas.evaluate(CUT)
    assert {name: some for name, some in found.items() if some} == {}


def test_in_the_blueprint_no_node_covers_another(canvas: Page) -> None:
    """Its links come from 27 parameters and cross what they will."""
    with drawing_every(canvas, 0):
        open_workflow(canvas, json.loads(BLUEPRINT.read_text(encoding="utf-8")))
        canvas.evaluate("() => app.canvas.openSubgraph(app.graph.nodes[0].subgraph, app.graph.nodes[0])")
        canvas.evaluate(WHOLE)
        found = faults(canvas)
        canvas.evaluate("() => app.canvas.setGraph(app.rootGraph)")
    assert found == []
