"""A headless Chromium, spoken to through its pipe: messages are JSON, each ended by a zero byte."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_PATIENCE = 120.0
_AT_3_AND_4 = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, place in zip(ends, (3, 4)):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One process; `open` gives pages."""

    def __init__(self, profile: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += [f"--user-data-dir={profile}", "--remote-debugging-pipe", "--disable-background-networking"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", _AT_3_AND_4, str(theirs_in), str(theirs_out), str(CHROMIUM), *flags, "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._count = b"", 0
        self.events: list[dict] = []

    def ask(self, method: str, session: str | None = None, **params):
        """Send a command and wait for its answer; what is told meanwhile is kept in `events`."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        os.write(self._out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (found := self._next()).get("id") != self._count:
            self.events.append(found)
        assert "error" not in found, (method, found["error"])
        return found["result"]

    def _next(self) -> dict:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0], "Chromium does not answer"
            self._buffer += os.read(self._in, 1 << 16)
        text, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(text)

    def open(self, path: Path, width: int = 1000, script: bool = True) -> Page:
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        page = Page(self, self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.ask(f"{domain}.enable")
        page.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600)
        page.ask("Emulation.setScriptExecutionDisabled", value=not script)
        self.events.clear()
        page.ask("Page.navigate", url=path.as_uri())
        while not any(each.get("method") == "Page.loadEventFired" for each in self.events):
            self.events.append(self._next())
        return page

    def close(self) -> None:
        os.write(self._out, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        os.close(self._in)
        os.close(self._out)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def ask(self, method: str, **params):
        return self.browser.ask(method, self.session, **params)

    def run(self, code: str):
        """The value of an expression in the page."""
        found = self.ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": codes[key]}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": text} if text else {}))
        self.ask("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, selector: str) -> None:
        code = "e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
        where = "[b.x + b.width / 2, b.y + b.height / 2]"
        place = self.run(f"(e => {{ {code} return {where}; }})(document.querySelector({json.dumps(selector)}))")
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def complaints(self) -> list[dict]:
        """Whatever a console would show in red, and requests to anywhere."""
        self.run("1")
        found = [each for each in self.browser.events if each.get("sessionId") == self.session]
        bad = [each for each in found if each["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        bad += [each for each in found if each["method"] == "Runtime.consoleAPICalled"]
        asked = [each["params"]["request"]["url"] for each in found if each["method"] == "Network.requestWillBeSent"]
        return bad + [{"url": url} for url in asked[1:] if not url.startswith("data:")]


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    made = Browser(tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()
