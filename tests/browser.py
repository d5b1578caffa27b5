"""A headless Chromium that tests press keys in, move a mouse in, and look at.

It is spoken to in its DevTools protocol, through a pair of pipes: nothing is needed
beside the browser itself.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # which root may not have; pages are ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# The browser reads from 3 and writes to 4; the copies are out of their way.
_HAND_OVER = """
import fcntl, os, sys
copies = [fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]]
for copy, place in zip(copies, (3, 4), strict=True):
    os.dup2(copy, place)
os.execv(sys.argv[3], sys.argv[3:])
"""
_PATIENCE_SECONDS = 120.0  # more than the slowest page takes on a busy machine


class Browser:
    """One page in a browser.

    Parameters
    ----------
    commands, answers : int
        Ends of the pipes.

    Attributes
    ----------
    errors : list of str
        What pages have written to the console as errors, since one was last shown.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self.errors: list[str] = []
        self._commands, self._answers = commands, answers
        self._number, self._read, self._session = 0, b"", ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send(
            "Target.attachToTarget", targetId=target, flatten=True
        )["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what is an error on the console of the page."""
        told = event.get("params", {})
        kind = told.get("type") or told.get("entry", {}).get("level")
        thrown = event.get("method") == "Runtime.exceptionThrown"
        if thrown or kind in ("error", "assert"):
            self.errors.append(json.dumps(told))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            ready, _, _ = select.select([self._answers], [], [], _PATIENCE_SECONDS)
            assert ready, "Chromium does not answer"
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium has ended"
            self._read += part
        text, self._read = self._read.split(b"\0", 1)
        return dict(json.loads(text))

    def show(self, page: Path, wide: int = 1280, high: int = 900) -> None:
        """Open a page in a window, and wait until it was loaded."""
        self.resize(wide, high)
        self.errors = []
        self.send("Page.navigate", url=page.as_uri())
        self.wait(
            f"location.href === {json.dumps(page.as_uri())} && "
            "document.readyState === 'complete'"
        )

    def resize(self, wide: int, high: int) -> None:
        """Make the window so many CSS pixels large."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=wide,
            height=high,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, scheme: str) -> None:
        """Prefer a light or dark page."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)

    def ask(self, script: str) -> Any:
        """Return the value of an expression; a promise is waited for."""
        found = self.send(
            "Runtime.evaluate",
            expression=script,
            returnByValue=True,
            awaitPromise=True,
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while not self.ask(condition):
            assert time.monotonic() < end, f"never true: {condition}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait until what was asked for has been drawn."""
        self.ask(
            "new Promise(done => requestAnimationFrame(() => "
            "requestAnimationFrame(() => done(1))))"
        )

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """Move, press or release the mouse at a place of the window."""
        button = {} if kind == "mouseMoved" and not more else {"button": "left"}
        self.send(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            clickCount=1,
            **button,
            **more,
        )

    def drag(self, corners: list[tuple[float, float]]) -> None:
        """Draw with the button held."""
        self.mouse("mousePressed", *corners[0])
        for corner in corners[1:]:
            self.mouse("mouseMoved", *corner, buttons=1)
        self.mouse("mouseReleased", *corners[-1])
        self.settle()

    def press(self, key: str, shift: bool = False) -> None:
        """Press a key in what has the focus."""
        text = {"text": key} if len(key) == 1 else {}
        for kind in ("keyDown", "keyUp"):
            pressed = text if kind == "keyDown" else {}
            self.send(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                modifiers=8 if shift else 0,
                **pressed,
            )
        self.settle()

    def picture(self, path: Path, whole: bool = False) -> None:
        """Save what is seen as PNG; the whole page if asked for."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browsing(downloads: Path) -> Iterator[Browser]:
    """Start a browser that saves what it downloads in a folder; skip without one."""
    program = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"NO BROWSER: none of {', '.join(_NAMES)}; pages were not tried")
    read_commands, commands = os.pipe()
    answers, write_answers = os.pipe()

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _HAND_OVER),
                *(str(read_commands), str(write_answers)),
                *(program, *_FLAGS, f"--user-data-dir={profile}"),
            ],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        try:
            browser = Browser(commands, answers)
            browser.send(
                "Browser.setDownloadBehavior",
                behavior="allow",
                downloadPath=str(downloads),
            )
            yield browser
        finally:
            with suppress(OSError):
                os.close(commands)
            process.terminate()
            process.wait(_PATIENCE_SECONDS)
            os.close(answers)
