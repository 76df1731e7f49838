"""What only a browser can say: the explorers move in JupyterLab, and every page fits its window.

Without a Chromium these tests are skipped; with COURSE_BROWSER=required, as in CI, that is a failure.
"""

import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import nbformat
import pytest
from nbconvert import HTMLExporter

from tests.notebooks import ALL, CHAPTERS
from utils.data import ROOT

# {explorer: its controls, in an order in which each of them changes the picture}
EXPLORERS = {
    "softmax_scale": ("head size H", "divide scores", "other numbers"),
    "masks": ("mask", "window's width", "orange node", "text"),
    "normalization": ("b, row of batch", "t, time", "mean over", "c, channel"),
    "tokenizers": ("text", "merges made"),
    "next_character": ("text", "look back"),
    "attention_heads": ("query (row)", "text", "block", "head"),
    "training_steps": ("step", "block", "head"),
    "sampling": ("text", "top-k", "top-p", "temperature", "seed of the dice"),
}
# What a page hands over: here a byte-pair encoding of pieces that are all of one length.
ARGUMENTS = {"tokenizers": "lambda text, n: [text[i : i + n + 1] for i in range(0, len(text), n + 1)], 9"}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
explorers = pytest.mark.parametrize("name", EXPLORERS)
pages = pytest.mark.parametrize("path", ALL, ids=lambda path: f"{path.parent.name}-{path.stem}")


@pytest.fixture(scope="module")
def browser():
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    try:
        from playwright.sync_api import expect, sync_playwright
        expect.set_options(timeout=20_000)   # two cores may have much to do
        missing = program is None and "no Chromium on this machine"
    except ImportError:
        missing = "playwright is not installed"
    if missing:
        (pytest.fail if os.environ.get("COURSE_BROWSER") == "required" else pytest.skip)(missing)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=program, args=FLAGS)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab with nobody's settings, and in it a notebook with one cell for each explorer."""
    home = tmp_path_factory.mktemp("lab")
    for name, setting in {
        "notebook-extension/tracker": '{"windowingMode": "none"}',   # all cells are in the page, also those below the window
        "apputils-extension/notification": '{"fetchNews": "false", "checkForUpdates": false}',
    }.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(setting)
    (home / "pages").mkdir()
    calls = {name: f"widgets.{name}({ARGUMENTS.get(name, '')})" for name in EXPLORERS}
    code = [nbformat.v4.new_code_cell("from utils import widgets\n" + call, id=name.replace("_", "-")) for name, call in calls.items()]
    notebook = nbformat.v4.new_notebook(cells=code, metadata={"kernelspec": {"display_name": "Python 3", "name": "python3"}})
    nbformat.write(notebook, home / "pages" / "explorers.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    folders = {f"JUPYTER_{name}_DIR": str(home / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    folders |= {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--ServerApp.root_dir={home / 'pages'}",
        f"--ServerApp.port={port}", f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True",
    ]
    with open(home / "log", "w") as log:
        server = subprocess.Popen(command, env=os.environ | folders | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=5)
                break
            except OSError:
                assert server.poll() is None, (home / "log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/lab/tree/explorers.ipynb?token={token}"
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture(scope="module")
def page(browser, lab):
    """The notebook, open and run."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(lab)
    page.wait_for_function("window.jupyterapp?.shell.currentWidget?.context?.sessionContext?.session?.kernel?.status === 'idle'")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    return page


class Cell:
    """One explorer on the page."""

    def __init__(self, page, name):
        self.page, self.root = page, page.locator(".jp-CodeCell").nth(list(EXPLORERS).index(name))
        self.image = self.root.locator("img")
        self.image.wait_for()

    def source(self):
        """The picture, once there is exactly one and it can be seen; no error beside it."""
        assert self.image.count() == 1
        assert self.image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
        assert len(self.image.get_attribute("alt").split()) >= 8
        assert self.root.locator("[data-mime-type$=error], [data-mime-type$=stderr]").count() == 0
        return self.image.get_attribute("src")

    def settled(self):
        """The picture once nothing is drawn any more."""
        before = None
        while (now := self.source()) != before:
            before = now
            self.page.wait_for_timeout(700)
        return now

    def control(self, label):
        return self.root.locator(".widget-inline-hbox", has=self.page.locator(f'.widget-label:text-is("{label}")'))

    def labels(self):
        return {label for label in self.root.locator(".widget-label").all_text_contents() if label}

    def move(self, label):
        control = self.control(label)
        if control.locator("select").count():
            control.locator("select").select_option(index=1)
        elif control.locator("[role=slider]").count():
            slider = control.locator("[role=slider]")
            at_end = slider.get_attribute("aria-valuenow") == slider.get_attribute("aria-valuemax")
            slider.press("ArrowLeft" if at_end else "ArrowRight")
        else:
            control.locator("input, textarea").fill("To be, or not")


@explorers
def test_every_control_moves_the_picture(page, name):
    from playwright.sync_api import expect
    cell = Cell(page, name)
    assert cell.labels() == set(EXPLORERS[name]), "a control without a test, or a test without its control"
    for label in EXPLORERS[name]:
        before = cell.source()
        cell.move(label)
        expect(cell.image).not_to_have_attribute("src", before)
        cell.source()


@explorers
def test_a_thousand_quick_changes_leave_one_picture(page, name):
    from playwright.sync_api import expect
    cell = Cell(page, name)
    slider = cell.root.locator("[role=slider]").last
    slider.press("Home")
    slider.press("ArrowRight")
    second = cell.settled()
    slider.evaluate("""async slider => {
        for (let i = 0; i < 1000; i++) {
            slider.dispatchEvent(new KeyboardEvent("keydown", {key: i % 2 ? "ArrowRight" : "ArrowLeft", bubbles: true, cancelable: true}));
            if (i % 20 === 0) await new Promise(resolve => setTimeout(resolve));
        }
    }""")
    expect(cell.image).to_have_attribute("src", second)   # soon: the thousand do not pile up
    slider.press("ArrowLeft")
    expect(cell.image).not_to_have_attribute("src", second)
    slider.press("ArrowRight")
    expect(cell.image).to_have_attribute("src", second)
    assert cell.source() and cell.root.locator(".jp-OutputArea-child").count() == 1


@pytest.fixture(scope="module")
def window(browser):
    """A window that fetches nothing: formulas come from the web, and a page must be fine without."""
    window = browser.new_page()
    window.route("**/*", lambda route: route.continue_() if route.request.url.startswith("file:") else route.abort())
    return window


@pages
def test_a_rendered_page_fits_and_misses_no_picture(path, window, tmp_path):
    html = tmp_path / "page.html"
    html.write_text(HTMLExporter().from_filename(str(path))[0], encoding="utf-8")
    for width in (1280, 390):
        window.set_viewport_size({"width": width, "height": 900})
        window.goto(html.as_uri(), wait_until="load")
        assert all(window.evaluate("[...document.images].map(image => image.naturalWidth)")), "a picture is missing"
        assert window.evaluate(WIDER) == [], f"at {width} pixels these are wider than the window"


def test_the_words_stored_with_a_picture_reach_a_rendered_page():
    """In the classic template: the one that looks like JupyterLab leaves them out, and says "No description"."""
    html = HTMLExporter(template_name="classic").from_filename(str(CHAPTERS[3]))[0]
    words = re.findall(r'<img(?:[^>]*?\balt="([^"]*)")?', html)
    assert words and all(len(alt.split()) >= 8 and "No description" not in alt for alt in words)


# What sticks out to the right of the window and can only be seen by moving the whole page.
WIDER = """(() => {
    const page = document.scrollingElement;
    if (page.scrollWidth <= page.clientWidth) return [];
    return [...document.body.querySelectorAll("*")]
        .filter(part => part.getBoundingClientRect().right + scrollX > page.clientWidth + 1)
        .map(part => `${part.tagName} .${part.className} in #${part.closest("[id]")?.id} ${part.textContent.slice(0, 40)}`)
        .slice(0, 12);
})()"""
