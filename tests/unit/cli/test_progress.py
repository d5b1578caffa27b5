import io

import pytest
from rich.console import Console

from cryoinfer.cli import progress
from cryoinfer.cli.progress import RichMonitor, time_left
from cryoinfer.interfaces import Monitor


def plain_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_it_is_a_monitor() -> None:
    monitor: Monitor = RichMonitor(plain_console())
    assert monitor.load_checkpoint() is None


def test_stages_of_one_name_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 2.0, 5.0, 5.0, 6.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    with RichMonitor(plain_console()) as monitor:
        monitor.stage("search", 3)
        monitor.stage("map", 1)
        monitor.stage("search", 3)
    assert monitor.stage_seconds == {"search": 3.0, "map": 3.0}
    assert monitor.stage_steps == {"search": 0, "map": 0}


def test_steps_of_stages_of_one_name_are_added_up() -> None:
    with RichMonitor(plain_console()) as monitor:
        for steps in (2, 3):
            monitor.stage("search", 3)
            monitor.advance(steps)
            monitor.end_stage()
    assert monitor.stage_steps == {"search": 5}


def test_lines_go_to_console_and_log() -> None:
    console, log = plain_console(), []
    with RichMonitor(console, log.append) as monitor:
        monitor.message("a [word] in brackets")
        monitor.stage("search", 3)
        monitor.advance(3)
    assert log == ["a [word] in brackets", "search: 0.0 s"]
    assert printed(console).splitlines() == log[:1]


def test_time_left_is_told_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 40.0, 50.0, 100.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    log: list[str] = []
    with RichMonitor(plain_console(), log.append) as monitor:
        monitor.stage("search", 100)
        for _ in range(3):
            monitor.advance(10)
    # 20 of 100 after 40 s: the other 80 take 160 s.
    assert log[0] == "search: 20 of 100, about 2 min 40 s left"
    assert len(log) == 2


def test_a_stage_that_grows_counts_what_was_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter([0.0, 40.0, 80.0, 90.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(clock))
    log: list[str] = []
    with RichMonitor(plain_console(), log.append) as monitor:
        monitor.stage("random starts", 1000)
        monitor.advance(1000)
        monitor.extend(3000)
        monitor.advance(1000)
    # What was counted is done, but the stage has not ended; then 2,000 of 4,000 have
    # taken 80 s, as the others will.
    assert log[:2] == [
        "random starts: 1,000 of 1,000, nearly done",
        "random starts: 2,000 of 4,000, about 1 min 20 s left",
    ]


@pytest.mark.parametrize(
    ("done", "total", "seconds", "words"),
    [
        (0, 10, 5.0, "time left not known yet"),
        (1, 10, 5.0, "about 45 s left"),
        (999, 1000, 100.0, "less than 1 s left"),
        (10, 10, 5.0, "nearly done"),
        (240, 60, 30.0, "nearly done"),
    ],
)
def test_work_that_remains_never_takes_no_time(
    done: int, total: int, seconds: float, words: str
) -> None:
    assert time_left(done, total, seconds) == words


def test_a_terminal_sees_a_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with RichMonitor(console) as monitor:
        monitor.stage("search", 3)
        monitor.advance()
        monitor.extend(3)
        monitor.message("between")
    text = printed(console)
    assert "between" in text
    assert "search" in text
    assert "0/3" in text


def test_advancing_outside_of_stages_is_no_error() -> None:
    with RichMonitor(plain_console()) as monitor:
        monitor.advance()
    assert monitor.stage_seconds == {}
