"""The console in a real browser, in front of gateways with a past (scene.rs).

SCENE names the program that serves them, CHROMIUM the browser, AXE the file of axe-core.
"""

import os
import select
import subprocess
import tempfile

import pytest
from playwright.sync_api import sync_playwright

SCENE = os.environ["SCENE"]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ADMIN_KEY = "admin-key"

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1440, "height": 900}


class Scenes:
    """Starts each scene when a test asks for it first."""

    def __init__(self):
        self.running = {}

    def url(self, name):
        if name not in self.running:
            data = tempfile.TemporaryDirectory()
            process = subprocess.Popen(
                [SCENE, "serve", name, "--data", data.name], stdout=subprocess.PIPE, text=True
            )
            ready, _, _ = select.select([process.stdout], [], [], 120)
            url = process.stdout.readline().strip() if ready else ""
            self.running[name] = (process, data, url)
            assert url.startswith("http://127.0.0.1:"), f"the scene {name} does not start"
        return self.running[name][2]

    def end(self):
        for process, data, _ in self.running.values():
            process.kill()
            process.wait()
            data.cleanup()


@pytest.fixture(scope="session")
def scenes():
    started = Scenes()
    yield started
    started.end()


@pytest.fixture(scope="session")
def browser():
    with sync_playwright() as playwright:
        # Chromium's own sandbox can't be made in most containers.
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def open_page(browser, scenes):
    """Opens a view of a scene; at the end nothing may have gone wrong in the page."""
    contexts, wrong = [], []

    def opened(scene, path="/spillway/", viewport=DESK, allowed=(), **options):
        context = browser.new_context(viewport=viewport, reduced_motion="reduce", **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(f"{path}: {error}"))
        page.on("dialog", lambda dialog: wrong.append(f"{path}: a dialog: {dialog.message}"))
        page.on(
            "console",
            lambda said: wrong.append(f"{path}: {said.text}")
            if said.type == "error" and not any(text in said.text for text in allowed)
            else None,
        )
        page.goto(scenes.url(scene) + path)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []
