"""Which chapters there are, read from ``contents.toml`` and ``topics.toml``."""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BOOK = Path(__file__).parents[1]


@dataclass(frozen=True)
class Chapter:
    """One chapter, as the table of contents has it.

    Parameters
    ----------
    slug : str
        Name of its file, without ``.py``.
    part, title, question : str
        For the reader.
    requires : tuple of str
        Slugs of chapters that it builds on.
    covers : tuple of str
        Subjects of ``topics.toml``.
    """

    slug: str
    part: str
    title: str
    question: str
    requires: tuple[str, ...]
    covers: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Its notebook."""
        return BOOK / "chapters" / f"{self.slug}.py"


@dataclass(frozen=True)
class Tour:
    """A path through the book."""

    title: str
    chapters: tuple[str, ...]
    ends: str


@dataclass(frozen=True)
class Contents:
    """All chapters in reading order, tours, and subjects by name."""

    chapters: tuple[Chapter, ...]
    tours: tuple[Tour, ...]
    topics: dict[str, str]

    def chapter(self, slug: str) -> Chapter:
        """Return a chapter.

        Raises
        ------
        KeyError
            If ``contents.toml`` has no such chapter.
        """
        for one in self.chapters:
            if one.slug == slug:
                return one
        raise KeyError(f"contents.toml has no chapter {slug}")

    def parts(self) -> dict[str, list[Chapter]]:
        """Return the chapters of every part, in order."""
        found: dict[str, list[Chapter]] = {}
        for one in self.chapters:
            found.setdefault(one.part, []).append(one)
        return found

    def after(self, slug: str) -> Chapter | None:
        """Return the chapter that follows, if there is one."""
        place = self.chapters.index(self.chapter(slug)) + 1
        return self.chapters[place] if place < len(self.chapters) else None


@cache
def contents() -> Contents:
    """Read the table of contents."""
    table = tomllib.loads((BOOK / "contents.toml").read_text(encoding="utf-8"))
    topics = tomllib.loads((BOOK / "topics.toml").read_text(encoding="utf-8"))
    chapters = tuple(
        Chapter(
            slug=one["slug"],
            part=part["title"],
            title=one["title"],
            question=one["question"],
            requires=tuple(one["requires"]),
            covers=tuple(one["covers"]),
        )
        for part in table["part"]
        for one in part["chapter"]
    )
    tours = tuple(
        Tour(one["title"], tuple(one["chapters"]), one["ends"]) for one in table["tour"]
    )
    return Contents(chapters, tours, topics["topics"])
