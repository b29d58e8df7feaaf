"""A headless Chromium, told what to do through a pipe with the Chrome DevTools Protocol.

In: a page. Out: what the page asked the network for, what its console said, screenshots, values of expressions. Requests that
the browser makes for itself are not among them: the protocol tells those of the page.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COMMANDS = ("chromium", "chromium-browser", "google-chrome")
NEEDED = "FUSEC_NEED_CHROMIUM"  # set where a missing browser is a failure
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run",
           "--disable-extensions", "--disable-background-networking", "--remote-debugging-pipe", "about:blank")
PATIENCE = 300.0  # seconds
# The browser reads its orders from descriptor 3 and answers on 4.
LAUNCH = """
import fcntl, os, sys
orders, answers = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])
os.dup2(orders, 3)
os.dup2(answers, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def command() -> str:
    """The browser's command; without one the test is skipped, or fails where `NEEDED` is set."""
    for name in COMMANDS:
        if found := shutil.which(name):
            return found
    words = f"no Chromium here (none of {', '.join(COMMANDS)}); Debian's package is chromium"
    if os.environ.get(NEEDED):
        pytest.fail(words)
    pytest.skip(words)


@dataclass
class Page:
    """A tab: calls wait for their answer, and what else arrives is kept."""

    orders: Any
    answers: Any
    session: str = ""
    number: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        self.number += 1
        order = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            order["sessionId"] = self.session
        self.orders.write(json.dumps(order).encode() + b"\0")
        self.orders.flush()
        while (answer := self._read()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def wait(self, method: str) -> None:
        """Until an event has come."""
        while not any(e.get("method") == method for e in self.events):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        data = bytearray()
        while (byte := self.answers.read(1)) != b"\0":
            assert byte, "the browser has ended"
            data += byte
        message: dict[str, Any] = json.loads(data)
        return message

    def open(self, path: Path, width: int, scheme: str = "light") -> None:
        """Load a file in a window of that width with that colour scheme."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        self.wait("Page.loadEventFired")

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression in the page; its own policy does not hold for it."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    @property
    def requests(self) -> list[str]:
        """What the page asked for, itself and what it holds within included."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    @property
    def complaints(self) -> list[str]:
        """Exceptions, console messages and the browser's own remarks on the page, refused requests among them."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(e["params"]) for e in self.events if e.get("method") in kinds]


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """A browser whose profile lies in `folder`, ended behind the block, or after `PATIENCE` seconds if it hangs."""
    found = command()
    (orders_in, orders_out), (answers_in, answers_out) = os.pipe(), os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(orders_in), str(answers_out), found, f"--user-data-dir={folder}", *OPTIONS],
        pass_fds=(orders_in, answers_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(orders_in)
    os.close(answers_out)
    watch = threading.Timer(PATIENCE, process.kill)
    watch.start()
    with os.fdopen(orders_out, "wb") as orders, os.fdopen(answers_in, "rb") as answers:
        try:
            page = Page(orders, answers)
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                page.call(f"{domain}.enable")
            yield page
        finally:
            watch.cancel()
            process.terminate()
            process.wait(timeout=30)
