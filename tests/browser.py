"""A headless Chromium for tests, driven without a library: the DevTools protocol over a pair of pipes, JSON and a 0 byte each.

    with Browser(width=1000) as page:
        page.open(path)
        page.run("document.title")
        page.call("name => document.querySelector(name).focus()", "button")
        page.press("ArrowDown")
        page.errors, page.requests
"""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 30       # seconds
CODES = {"Enter": 13, " ": 32, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35}
FLAGS = ["--headless=new", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
         "--disable-background-networking", "--disable-extensions", "--hide-scrollbars"]
if hasattr(os, "geteuid") and os.geteuid() == 0:
    FLAGS.append("--no-sandbox")            # its sandbox refuses to work for root
CENTRE = """selector => {
    const element = document.querySelector(selector);
    element.scrollIntoView({block: "center"});
    const box = element.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
}"""


class Browser:
    """errors: exceptions and console errors of the page; requests: addresses that it asked for"""

    def __init__(self, width=1000, height=900):
        self.errors, self.requests, self.count, self.answers, self.rest = [], [], 0, {}, b""
        self.profile = tempfile.mkdtemp()
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # The browser reads from descriptor 3 and writes to 4.  A shell puts them there, for pass_fds keeps the numbers they have.
        place = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["bash", "-c", place, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={self.profile}"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.ours_in, self.ours_out, self.session = ours_in, ours_out, None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.process.kill()             # its profile is thrown away, so it has nothing to save
        self.process.wait()
        os.close(self.ours_in)
        os.close(self.ours_out)
        shutil.rmtree(self.profile, ignore_errors=True)

    def send(self, method, **params):
        """A command and its result; what happens meanwhile is noted."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.ours_out, json.dumps(message).encode() + b"\0")
        number = self.count
        while number not in self.answers:
            self.read()
        answer = self.answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def read(self):
        if not select.select([self.ours_in], [], [], PATIENCE)[0]:
            raise RuntimeError(f"the browser has been silent for {PATIENCE} s")
        part = os.read(self.ours_in, 2**20)
        if not part:
            raise RuntimeError("the browser has gone")
        *whole, self.rest = (self.rest + part).split(b"\0")
        for message in map(json.loads, whole):
            if "id" in message:
                self.answers[message["id"]] = message
            else:
                self.note(message["method"], message["params"])

    def note(self, method, params):
        if method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"]["exception"].get("description", "exception"))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.errors.append(str(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    def open(self, path):
        """Open a file and wait until its scripts have run."""
        self.errors.clear()
        self.requests.clear()
        url = Path(path).resolve().as_uri()
        self.send("Page.navigate", url=url)
        self.wait(f"document.readyState + location.href === {json.dumps('complete' + url)}")

    def wait(self, script):
        """Until an expression holds, for what a page does a little later"""
        end = time.monotonic() + PATIENCE
        while not self.run(script):
            if time.monotonic() > end:
                raise RuntimeError(f"never came true: {script}")
            time.sleep(0.02)

    def run(self, script):
        """The value of an expression in the page"""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description"))
        return found["result"].get("value")

    def call(self, function, *arguments):
        """The value of a function of the page"""
        return self.run(f"({function})({', '.join(map(json.dumps, arguments))})")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r" if key == "Enter" else key} if kind == "keyDown" and key in ("Enter", " ") else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code="Space" if key == " " else key,
                      windowsVirtualKeyCode=CODES[key], **text)

    def click(self, selector):
        x, y = self.call(CENTRE, selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width, height=900):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, **features):
        """prefer(color_scheme="dark")"""
        features = [{"name": "prefers-" + name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.send("Emulation.setEmulatedMedia", features=features)

    def picture(self, path, whole=True):
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(data))
