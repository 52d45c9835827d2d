"""Headless Chromium over its DevTools protocol: what a page requests, logs and measures."""

import base64
import json
import shutil
import subprocess
import time
from contextlib import closing, contextmanager

from websocket import create_connection

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
PATIENCE = 60  # seconds for an answer or a page
CONNECTION = {"timeout": PATIENCE, "suppress_origin": True}


def find_chromium():
    """Path of an installed Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium(profile):
    """Yield a `Tab` of a browser that keeps its files in `profile`."""
    command = [find_chromium(), *OPTIONS, "--remote-debugging-port=0", f"--user-data-dir={profile}"]
    with open(profile / "log", "wb") as log:
        process = subprocess.Popen([*command, "about:blank"], stdout=log, stderr=log)
    try:
        with closing(create_connection(endpoint(profile), **CONNECTION)) as socket:
            yield Tab(socket)
    finally:
        process.terminate()
        process.wait(PATIENCE)


def endpoint(profile):
    """Address that the starting browser writes into its profile."""
    file = profile / "DevToolsActivePort"
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if file.exists() and len(lines := file.read_text().split()) == 2:
            return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
        time.sleep(0.1)
    raise TimeoutError(f"Chromium did not start: {(profile / 'log').read_text()}")


class Tab:
    """One page at a time, with the errors and the requests since it was opened."""

    def __init__(self, socket):
        self._socket = socket
        self._session = None
        self._n_sent = 0
        self.errors, self.requests, self._loaded = [], [], False
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def open(self, url, *, width, height=900, dark=False):
        """Load a page and wait until all of it is there."""
        self.errors, self.requests, self._loaded = [], [], False
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=url)
        while not self._loaded:
            self._receive()

    def evaluate(self, expression):
        """Value of a JavaScript expression."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value")

    def screenshot(self, path):
        """Save the whole page as PNG."""
        answer = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _call(self, method, **params):
        self._n_sent += 1
        message = {"id": self._n_sent, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while (answer := self._receive()).get("id") != self._n_sent:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _receive(self):
        message = json.loads(self._socket.recv())
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Network.loadingFailed":
                self.errors.append(params["errorText"])
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                self.errors.append(str(params["args"]))
            case "Runtime.exceptionThrown":
                self.errors.append(params["exceptionDetails"]["text"])
        return message
