"""A page of a report in a browser, and what can be done with it."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from browser import Browser

from cryoinfer.report.parts import page

# Of the picture, as scatter.js has them: left, right, top, bottom.
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 8, 42


COVERED = (
    "(() => { const one = document.querySelector('.surface canvas');"
    "const data = one.getContext('2d').getImageData(0, 0, one.width, one.height).data;"
    "let n = 0; for (let i = 3; i < data.length; i += 4) n += data[i] > 0;"
    "return n; })()"
)

MIDDLE = (
    "(() => { const one = document.querySelector('.surface canvas');"
    "return [...one.getContext('2d').getImageData("
    "one.width / 2, one.height / 2, 1, 1).data].slice(0, 3); })()"
)


@dataclass(frozen=True)
class Desk:
    """A browser, and the folder that it saves to."""

    browser: Browser
    folder: Path

    def open(self, body: str, wide: int = 1280, high: int = 1500) -> None:
        """Show a page of one section."""
        text = page(
            title="Run",
            subtitle="",
            verdict="",
            tiles="",
            findings=(),
            sections=[body],
        )
        path = self.folder / "page.html"
        path.write_text(text, encoding="utf-8")
        self.browser.show(path, wide, high)
        self.browser.settle()

    @property
    def picture(self) -> str:
        """What the canvas of a surface shows."""
        return str(
            self.browser.ask("document.querySelector('.surface canvas').toDataURL()")
        )

    def saved(self) -> dict:
        """Return the selection that is being saved."""
        path = self.folder / "selection.json"
        end = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < end, "nothing was saved"
            time.sleep(0.02)
        return json.loads(path.read_text())

    def text(self, selector: str) -> str:
        return str(self.browser.ask(f"document.querySelector('{selector}').innerText"))

    def click(self, do: str) -> None:
        self.browser.ask(f"""document.querySelector('[data-do="{do}"]').click()""")
        self.browser.settle()

    def choose(self, selector: str, value: object) -> None:
        self.browser.ask(
            f"(() => {{ const one = document.querySelector('{selector}');"
            f"one.value = {json.dumps(value)};"
            "for (const kind of ['input', 'change'])"
            "one.dispatchEvent(new Event(kind)); })()"
        )
        self.browser.settle()

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a share of the picture, from its lower left, lies."""
        left, top, wide, high = self.browser.ask(
            "(() => { const at = document.querySelector('.points')"
            ".getBoundingClientRect();"
            "return [at.left, at.top, at.width, at.height]; })()"
        )
        return (
            left + LEFT + x * (wide - LEFT - RIGHT),
            top + TOP + (1 - y) * (high - TOP - BOTTOM),
        )

    def particle(self, x: float, y: float) -> tuple[float, float]:
        """Return where a particle of FIVE is: there is 1.5 of room about 0 to 10."""
        return self.place((x + 1.5) / 13, (y + 1.5) / 13)

    def colour(self, x: float, y: float) -> list[int]:
        """Return red, green, blue and opacity of a point of the window."""
        return list(
            self.browser.ask(
                "(() => { const one = document.querySelector('.points');"
                "const at = one.getBoundingClientRect();"
                f"return [...one.getContext('2d').getImageData({x} - at.left, "
                f"{y} - at.top, 1, 1).data]; }})()"
            )
        )
