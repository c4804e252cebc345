"""What tests do in the real front end: open a workflow, see what it would send, take a picture."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from playwright.sync_api import Browser, Page

import workflows
from comfyui import ROOT, Prompt

SCREENSHOTS = ROOT / ".dev" / "screenshots"
PACED = """
    const [draw, cancel] = [window.requestAnimationFrame.bind(window), window.cancelAnimationFrame.bind(window)]
    window.pace = 50
    window.requestAnimationFrame = picture => window.pace ? -setTimeout(() => picture(performance.now()), window.pace) : draw(picture)
    window.cancelAnimationFrame = number => number < 0 ? clearTimeout(-number) : cancel(number)
"""  # milliseconds from picture to picture: sixty a second, which nobody sees here, would take the core that samples
READY = "() => window.app?.graph && window.app.vueAppReady"
PATIENCE = 120_000  # milliseconds: waiting is for an event, and a busy machine only takes longer


def open_front_end(browser: Browser, url: str, prepare: Callable[[Page], object] = lambda page: None) -> Page:
    """A page of its own, ready; `prepare` is called on it before it goes there."""
    page = browser.new_page(viewport={"width": 1900, "height": 1000})
    page.set_default_timeout(PATIENCE)
    page.add_init_script(PACED)
    prepare(page)
    page.goto(url)
    page.wait_for_function(READY)
    return page


def open_workflow(page: Page, workflow: workflows.Workflow) -> None:
    with drawing_every(page, 0):  # the Nodes 2.0 of 1.32.9 displaces nodes that it measures while the view moves, the more the slower it draws
        page.evaluate("workflow => app.loadGraphData(workflow)", workflow)
        wait_for_nodes(page, len(workflow["nodes"]))
        wait_for_drawing(page)


def wait_for_nodes(page: Page, count: int) -> None:
    page.wait_for_function("count => app.graph.nodes.length === count", arg=count)


def set_widgets(page: Page, values: dict[str, Any]) -> None:
    page.evaluate("""values => app.graph.nodes.flatMap(node => node.widgets ?? []).forEach(widget => {
        if (widget.name in values) widget.value = values[widget.name]
    })""", values)


def sent_prompt(page: Page) -> Prompt:
    """What the front end would queue now."""
    prompt = page.evaluate("async () => JSON.parse(JSON.stringify((await app.graphToPrompt()).output))")
    return {node_id: {"class_type": node["class_type"], "inputs": node["inputs"]} for node_id, node in prompt.items()}


def expect_bars(page: Page, high: int, low: int, forecast: int | None = None) -> None:
    """Wait until the schedule plot shows so many steps of each expert, so many of them forecast."""
    page.wait_for_function("""([high, low]) => {
        const count = expert => document.querySelectorAll(`.wan22-schedule [data-expert=${expert}]`).length
        return count('high') === high && count('low') === low
    }""", arg=[high, low])
    if forecast is not None:
        assert page.locator(".wan22-schedule [data-forecast=true]").count() == forecast


def wait_for_drawing(page: Page, pictures: int = 4) -> None:
    """Until so many pictures were drawn from now on."""
    page.evaluate("""async pictures => {
        for (let drawn = 0; drawn < pictures; drawn++) await new Promise(requestAnimationFrame)
    }""", pictures)


@contextlib.contextmanager
def drawing_every(page: Page, milliseconds: int) -> Iterator[None]:
    """One picture in this time meanwhile; 0 is the browser's own pace."""
    before = page.evaluate("() => window.pace")
    page.evaluate("pace => { window.pace = pace }", milliseconds)
    yield
    page.evaluate("pace => { window.pace = pace }", before)


def screenshot(page: Page, name: str) -> None:
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    wait_for_drawing(page)
    page.screenshot(path=SCREENSHOTS / f"{name.replace('/', '_')}.png")
