"""A headless Chromium on the real front end, opened once for all of these tests."""

import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, sync_playwright

from comfyui import PACK_FOLDER, ComfyUI
from front_end import READY, open_front_end, screenshot

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
EXPECTED = (200, 400)  # of the pack's own addresses: 400 for values that the node would refuse
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingNodesWarning": True, "Comfy.Workflow.ShowMissingModelsWarning": True,
            "LiteGraph.Canvas.MinFontSizeForLOD": 0}  # write on nodes however small they are drawn
EMPTY = """async () => {
    const {workflow, command, sidebarTab} = app.extensionManager
    sidebarTab.activeSidebarTabId = null
    await command.execute('Comfy.NewBlankWorkflow')
    for (const other of workflow.openWorkflows.filter(each => each !== workflow.activeWorkflow)) await workflow.closeWorkflow(other)
}"""


@pytest.fixture(scope="package")
def chromium() -> Iterator[Browser]:
    path = os.environ.get("CHROME") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium: install Debian's chromium or set CHROME")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def front_end(chromium: Browser, server: ComfyUI) -> Page:
    """The front end, loaded and ready, as a user with ComfyUI's first-run tour behind them."""
    (server.base / "user" / "default").mkdir(exist_ok=True)
    (server.base / "user" / "default" / "comfy.settings.json").write_text(json.dumps(SETTINGS))
    return open_front_end(chromium, server.url)


@pytest.fixture
def page(front_end: Page, server: ComfyUI) -> Page:
    """The front end with an empty canvas and nothing else open; the server has nothing to do."""
    server.post("/queue", {"clear": True})
    server.post("/interrupt")
    if front_end.locator("[role=dialog]").count():
        front_end.reload()
        front_end.wait_for_function(READY)
    front_end.evaluate(EMPTY)
    assert front_end.evaluate("() => app.graph.nodes.length") == 0
    return front_end


@pytest.fixture(params=[False, True], ids=["classic", "nodes 2.0"])
def canvas(page: Page, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The front end on either canvas; the pack's own scripts must not complain, and the last thing seen is kept as a picture."""
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if is_ours(message):
            complaints.append(message.text)

    def see(response: Response) -> None:
        if "/wan22/" in response.url and response.status not in EXPECTED:
            complaints.append(response.url)

    def catch(error: Exception) -> None:
        if PACK_FOLDER in (getattr(error, "stack", "") or ""):
            complaints.append(str(error))

    watched: dict[Any, Any] = {"console": hear, "response": see, "pageerror": catch}
    for event, watch in watched.items():
        page.on(event, watch)
    page.evaluate("async on => await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", request.param)
    yield page
    screenshot(page, request.node.name)
    for event, watch in watched.items():
        page.remove_listener(event, watch)
    assert complaints == []


def is_ours(message: ConsoleMessage) -> bool:
    """A complaint that names the pack's folder, but for core's first look for a help page in the user's language."""
    url = message.location.get("url", "")
    return message.type in ("error", "warning") and f"/{PACK_FOLDER}/" in message.text + url and not url.endswith("/en.md")
