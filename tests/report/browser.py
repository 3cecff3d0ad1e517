"""A headless Chromium for tests, by Playwright, with its errors and requests.

    with Browser(width=1000) as browser:
        browser.open(path)
        browser.page.title()
        browser.errors, browser.requests
"""
import os
import shutil
from pathlib import Path

try:
    from playwright.sync_api import sync_playwright
except ImportError:
    sync_playwright = None

# The system's: Playwright's own is a separate download.
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
MISSING = "playwright" if sync_playwright is None else "Chromium" if CHROMIUM is None else None


class Browser:
    """errors: exceptions, errors and warnings of the page; requests: addresses that it asked for"""

    def __init__(self, width=1000, height=900):
        self.playwright = sync_playwright().start()
        as_root = hasattr(os, "geteuid") and os.geteuid() == 0      # its sandbox fails for root
        self.browser = self.playwright.chromium.launch(executable_path=CHROMIUM,
                                                       chromium_sandbox=not as_root)
        self.page = self.browser.new_page(viewport={"width": width, "height": height})
        self.errors, self.requests = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self.note)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def note(self, message):
        if message.type in ("error", "warning", "assert"):
            self.errors.append(message.text)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.browser.close()
        self.playwright.stop()

    def open(self, path):
        """Open a file and wait until its scripts have run."""
        self.errors.clear()
        self.requests.clear()
        self.page.goto(Path(path).resolve().as_uri())

    def run(self, script):
        """The value of an expression in the page"""
        return self.page.evaluate(script)

    def resize(self, width, height=900):
        self.page.set_viewport_size({"width": width, "height": height})
