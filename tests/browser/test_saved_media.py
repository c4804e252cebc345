"""Save Video shows what it has saved, a picture or a video, after the other kind too; and the front end finds the workflow in pictures."""

from playwright.sync_api import Page

from comfyui import Prompt

SHOWN = """kind => {
    const node = app.graph.getNodeById(4)
    const drawn = node.imgs?.length && node.widgets.every(widget => widget.name !== 'video-preview')
    return document.querySelector(`${kind}[src*='shown_']`) || (kind === 'img' && drawn)
}"""

READ_BACK = """async reader => {
    const saved = app.nodeOutputs['4'].images[0]
    const content = await (await fetch('/api/view?' + new URLSearchParams(saved))).blob()
    return Object.keys(await window.comfyAPI.pnginfo[reader](new File([content], saved.filename))).sort()
}"""
READERS = {"webp": "getWebpMetadata", "png": "getPngMetadata"}


def graph() -> Prompt:
    return {"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 32, "batch_size": 3, "color": 0}},
            "3": {"class_type": "CreateVideo", "inputs": {"images": ["1", 0], "fps": 16.0}},
            "4": {"class_type": "Wan22SaveVideo", "inputs": {"video": ["3", 0], "filename_prefix": "shown", "video_quality": "low",
                                                             "video_write_mode": "fast", "reverse_video": False, "save_output": False}}}


def test_pictures_are_shown_as_pictures_and_videos_as_videos(canvas: Page) -> None:
    canvas.evaluate("prompt => app.loadApiJson(prompt, 'shown')", graph())
    canvas.evaluate("() => { app.graph.getNodeById(4).pos = [500, 100]; app.canvas.ds.offset = [0, 60] }")
    for container, kind in (("gif", "img"), ("auto", "video"), ("webp", "img"), ("auto", "video"), ("png", "img")):
        canvas.evaluate("""async container => {
            app.graph.getNodeById(4).widgets.find(widget => widget.name === 'container').value = container
            await app.queuePrompt(0)
        }""", container)
        canvas.wait_for_function(SHOWN, arg=kind)
        if container in READERS:
            assert canvas.evaluate(READ_BACK, READERS[container]) == ["prompt", "workflow"]
