import errno
import io
import zipfile
from pathlib import Path

import pytest
import torch

from cryoinfer.cli.state_file import StateFile
from cryoinfer.errors import InputError, OutputError
from cryoinfer.io import torch_files

STATE = {
    "step": 3,
    "name": "grid",
    "poses": torch.arange(12.0).view(4, 3),
    "sd": (1.0,),
}


def test_states_come_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert StateFile(path, "a").load() is None
    StateFile(path, "a").save({"step": 1})
    StateFile(path, "a").save(STATE)
    found = StateFile(path, "a").load()
    assert found is not None
    assert found.keys() == STATE.keys()
    assert torch.equal(found["poses"], STATE["poses"])
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_full_disk_keeps_the_state_before(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    StateFile(path, "a").save({"step": 1})
    (tmp_path / ".partial-checkpoint.pt").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"checkpoint\.pt: No space left"):
        StateFile(path, "a").save({"step": 2, "poses": torch.zeros(100_000)})
    assert StateFile(path, "a").load() == {"step": 1}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "is damaged"),
        (lambda data: b"half a file", "is damaged"),
        (lambda data: data[: len(data) // 2], "is damaged"),
        (lambda data: data[:-10], "is damaged"),
    ],
)
def test_a_damaged_state_is_told(tmp_path: Path, damage, said: str) -> None:
    file = StateFile(tmp_path / "checkpoint.pt", "a")
    file.save(STATE)
    file.path.write_bytes(damage(file.path.read_bytes()))
    with pytest.raises(InputError, match=f"{said}.*Delete it"):
        file.load()


def test_no_bit_of_a_number_turns_unseen(tmp_path: Path) -> None:
    # PyTorch itself reads such a file, and the number that has become of it.
    file = StateFile(tmp_path / "checkpoint.pt", "a")
    file.save(STATE)
    data = bytearray(file.path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        tensor = next(one for one in archive.namelist() if "/data/" in one)
        place = bytes(data).index(archive.read(tensor))
    data[place + 9] ^= 1
    file.path.write_bytes(data)
    found = torch.load(file.path, weights_only=True)["state"]["poses"]
    assert not torch.equal(found, STATE["poses"])
    with pytest.raises(InputError, match="is damaged"):
        file.load()


def test_a_state_of_another_run_or_version_is_told(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    StateFile(path, "a").save(STATE)
    with pytest.raises(InputError, match="of another run"):
        StateFile(path, "b").load()
    torch.save(STATE, path)
    with pytest.raises(InputError, match="another version"):
        StateFile(path, "a").load()


def test_a_file_server_that_fails_does_not_condemn_a_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = StateFile(tmp_path / "state.pt", "a")
    file.save({"done": 1})

    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(torch_files.torch, "load", stale)
    with pytest.raises(OSError, match="Stale"):
        file.load()
