"""What a phone shows of a page, and pages opened in a browser."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import Browser, browsing
from desk import Desk

PHONE_PX = 347.0
"""Of a page 400 pixels wide, what the edges of page and section leave to a figure."""

TEXT_POINTS = 10.0
SMALLEST_PX = 9.0
BESIDE = {"map": 2}
"""How many drawings a shape puts beside each other on a phone, if more than one."""

_FIGURE = re.compile(r'<figure class="(\w+)">(.*?)</figure>', re.DOTALL)


@pytest.fixture
def require_legible() -> Callable[[str], None]:
    """Return what refuses a page whose figures or tables a phone cannot show."""

    def check(page: str) -> None:
        figures = _FIGURE.findall(page)
        assert figures
        for shape, inside in figures:
            beside = BESIDE.get(shape, 1)
            for width in re.findall(r'viewBox="0 0 ([\d.]+) ', inside):
                # The unit of a drawing is a point.
                text_px = TEXT_POINTS * PHONE_PX / beside / float(width)
                assert text_px >= SMALLEST_PX, (shape, width)
        for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
            names = re.findall(r"<th>(.*?)</th>", table)
            assert ('class="many"' in table) == (len(names) > 3)
            told = re.findall(r'<td data-name="(.*?)"', table)
            rows = table.count("<tr>") - 1
            assert told == (names * rows if len(names) > 3 else [])
        assert not re.search(r"\d A\b|\bin A\b|\(A\)", page)

    return check


@pytest.fixture(scope="module")
def browser_and_folder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Browser, Path]]:
    folder = tmp_path_factory.mktemp("pages")
    with browsing(folder) as browser:
        yield browser, folder


@pytest.fixture
def desk(browser_and_folder: tuple[Browser, Path]) -> Desk:
    browser, folder = browser_and_folder
    (folder / "selection.json").unlink(missing_ok=True)
    browser.prefer("light")
    return Desk(browser, folder)
