"""A headless Chromium on the real front end."""

import json
import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

from comfyui import PACK_FOLDER, ComfyUI
from front_end import screenshot

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
EXPECTED = (200, 400)  # of the pack's own addresses: 400 for values that the node would refuse
SETTINGS = {"Comfy.TutorialCompleted": True, "Comfy.Workflow.ShowMissingNodesWarning": True, "Comfy.Workflow.ShowMissingModelsWarning": True,
            "LiteGraph.Canvas.MinFontSizeForLOD": 0}  # write on nodes however small they are drawn


@pytest.fixture
def page(server: ComfyUI) -> Iterator[Page]:
    """The front end, loaded and ready, as a user with ComfyUI's first-run tour behind them."""
    chromium = os.environ.get("CHROME") or next(filter(None, map(shutil.which, NAMES)), None)
    if chromium is None:
        pytest.skip("no Chromium: install Debian's chromium or set CHROME")
    (server.base / "user" / "default").mkdir(exist_ok=True)
    (server.base / "user" / "default" / "comfy.settings.json").write_text(json.dumps(SETTINGS))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        page = browser.new_page(viewport={"width": 1900, "height": 1000})
        page.goto(server.url)
        page.wait_for_function("() => window.app?.graph && window.app.vueAppReady", timeout=60_000)
        yield page
        browser.close()


@pytest.fixture(params=[False, True], ids=["classic", "nodes 2.0"])
def canvas(page: Page, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The front end on either canvas; the pack's own scripts must not complain, and the last thing seen is kept as a picture."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if is_ours(message) else None)
    page.on("response", lambda response: complaints.append(response.url) if "/wan22/" in response.url and response.status not in EXPECTED else None)
    page.on("pageerror", lambda error: complaints.append(str(error)) if PACK_FOLDER in (error.stack or "") else None)
    page.evaluate("async on => await app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", request.param)
    yield page
    screenshot(page, request.node.name)
    assert complaints == []


def is_ours(message: ConsoleMessage) -> bool:
    """A complaint that names the pack's folder, but for core's first look for a help page in the user's language."""
    url = message.location.get("url", "")
    return message.type in ("error", "warning") and f"/{PACK_FOLDER}/" in message.text + url and not url.endswith("/en.md")
