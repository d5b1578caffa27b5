"""What processes share. Run as a script, this file is one of two processes."""

import subprocess
import sys
from pathlib import Path

import torch
from torch import distributed

from cryoinfer.world import ALONE, World


def work(out: Path) -> None:
    distributed.init_process_group("gloo")
    world = World.current()
    mine = world.share(torch.arange(7))
    total = torch.zeros(7)
    total[mine] = mine.float() + 1
    world.add_up(total)
    found = {
        "mine": mine,
        "total": total,
        "gathered": world.gathered({"rank": world.rank}),
        "decided": world.of_first(f"by {world.rank}"),
    }
    torch.save(found, out / f"{world.rank}.pt")
    distributed.destroy_process_group()


def test_two_processes_share_rows_and_sums(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    # Rows next to each other, as they lie in the file.
    assert first["mine"].tolist() == [0, 1, 2, 3]
    assert second["mine"].tolist() == [4, 5, 6]
    for one in (first, second):
        assert one["total"].tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert one["gathered"] == [{"rank": 0}, {"rank": 1}]
        assert one["decided"] == "by 0"


def test_one_process_has_all_and_waits_for_nobody() -> None:
    rows, total = torch.arange(5), torch.ones(3)
    ALONE.add_up(total)
    assert World.current() == ALONE
    assert ALONE.is_first
    assert torch.equal(ALONE.share(rows), rows)
    assert torch.equal(total, torch.ones(3))
    assert ALONE.gathered("part") == ["part"]
    assert ALONE.of_first("value") == "value"


def test_fewer_rows_than_processes_leave_some_without() -> None:
    shares = [World(rank, 4).share(torch.arange(2)).tolist() for rank in range(4)]
    assert shares == [[0], [1], [], []]


if __name__ == "__main__":
    work(Path(sys.argv[1]))
