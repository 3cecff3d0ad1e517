"""A headless Chromium for tests, by Playwright: what it complains of and asks for is noted.

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

# The system's, since Playwright's own is a download of its own.
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "playwright" if sync_playwright is None else "Chromium" if CHROMIUM is None else None


class Browser:
    """errors: exceptions, errors and warnings of the page; requests: addresses that it asked for"""

    def __init__(self, width=1000, height=900):
        self.playwright = sync_playwright().start()
        as_root = hasattr(os, "geteuid") and os.geteuid() == 0          # its sandbox refuses to work for root
        self.browser = self.playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=not as_root)
        self.page = self.browser.new_page(viewport={"width": width, "height": height})
        self.errors, self.requests = [], []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: said.type in ("error", "warning", "assert") and self.errors.append(said.text))
        self.page.on("request", lambda request: self.requests.append(request.url))

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
