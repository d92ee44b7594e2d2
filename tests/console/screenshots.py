"""Takes the screenshots of docs/console.md into the folder that is named."""

import pathlib
import sys

from conftest import CHROMIUM, DESK, PHONE, Scenes
from playwright.sync_api import sync_playwright

VIEWS = {
    "now": "/spillway/",
    "history": "/spillway/history?reach=week",
    "money": "/spillway/money",
    "what-if": "/spillway/what-if?model=gpt-4o",
    "calls": "/spillway/calls",
}

SHOTS = [(name, path, DESK, "light") for name, path in VIEWS.items()] + [
    ("now-phone", VIEWS["now"], PHONE, "light"),
    ("history-dark", VIEWS["history"], DESK, "dark"),
]


def main(folder):
    scenes = Scenes()
    root = scenes.url("week")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox"]
            )
            context = browser.new_context()
            body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello " * 300}]}
            for _ in range(8):
                context.request.post(root + "/v1/chat/completions", data=body)
            for name, path, viewport, scheme in SHOTS:
                page = browser.new_page(
                    viewport=viewport, color_scheme=scheme, reduced_motion="reduce"
                )
                page.goto(root + path)
                page.screenshot(path=folder / f"console-{name}.png")
                page.close()
            browser.close()
    finally:
        scenes.end()


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
