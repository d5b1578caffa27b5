import numpy as np
import pytest

from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.io.cryosparc import read_cs, with_fields, write_cs


def table(uids, **fields):
    base = np.zeros(len(uids), dtype=[("uid", "u8")])
    base["uid"] = uids
    return with_fields(base, {k.replace("__", "/"): v for k, v in fields.items()})


def test_a_table_is_read_back(tmp_path):
    wanted = table([3, 1], blob__shape=np.array([[4, 4], [6, 6]], dtype="u4"))
    write_cs(tmp_path / "a.cs", wanted)
    found = read_cs(tmp_path / "a.cs")
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted)


def test_hundreds_of_fields_are_read(tmp_path):
    fields = {f"a_long_group_name__field_{i}": np.zeros(2) for i in range(300)}
    write_cs(tmp_path / "a.cs", table([1, 2], **fields))
    assert len(read_cs(tmp_path / "a.cs").dtype.names) == 301


@pytest.mark.parametrize("named", [True, False])
def test_passthrough_is_merged_by_uid(tmp_path, named):
    write_cs(tmp_path / "J1_particles.cs", table([3, 1], a=np.array([30, 10])))
    other = table([1, 2, 3], b=np.array([11, 22, 33]), a=np.array([0, 0, 0]))
    write_cs(tmp_path / "J1_passthrough_particles.cs", other)
    # A selection that lacks particle 1 is of another output group.
    write_cs(
        tmp_path / "J1_passthrough_particles_excluded.cs", table([3], c=np.array([5]))
    )
    given = [tmp_path / "J1_passthrough_particles.cs"] if named else []
    merged = read_cs(tmp_path / "J1_particles.cs", given)
    assert merged.dtype.names == ("uid", "a", "b")
    assert merged["b"].tolist() == [33, 11]
    assert merged["a"].tolist() == [30, 10]


def test_a_passthrough_of_other_particles_is_refused(tmp_path):
    write_cs(tmp_path / "a.cs", table([3, 1]))
    write_cs(tmp_path / "b.cs", table([3, 2], b=np.array([1, 2])))
    with pytest.raises(InputError, match="does not hold every particle"):
        read_cs(tmp_path / "a.cs", [tmp_path / "b.cs"])


def test_other_files_are_refused(tmp_path):
    with pytest.raises(MissingFileError):
        read_cs(tmp_path / "none.cs")
    (tmp_path / "a.cs").write_text("text")
    with pytest.raises(InputError, match=r"is not a cryoSPARC \.cs table"):
        read_cs(tmp_path / "a.cs")
    with (tmp_path / "b.cs").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="has no fields"):
        read_cs(tmp_path / "b.cs")
    with (tmp_path / "c.cs").open("wb") as file:
        np.save(file, np.array([object()]), allow_pickle=True)
    with pytest.raises(InputError, match="is not a cryoSPARC"):
        read_cs(tmp_path / "c.cs")


def test_a_lack_of_memory_is_no_damage_of_a_file(tmp_path, monkeypatch):
    write_cs(tmp_path / "a.cs", table([1]))

    def mapped(*_, **__):
        raise MemoryError("Unable to allocate 8 TiB")

    monkeypatch.setattr(np.lib.format, "open_memmap", mapped)
    with pytest.raises(MemoryError):
        read_cs(tmp_path / "a.cs")


def test_a_header_that_promises_more_than_the_file_is_damaged(tmp_path):
    write_cs(tmp_path / "a.cs", table([1, 2]))
    content = (tmp_path / "a.cs").read_bytes()
    (tmp_path / "a.cs").write_bytes(content[:-1])
    with pytest.raises(InputError, match="is not a cryoSPARC"):
        read_cs(tmp_path / "a.cs")
    content = content.replace(b"(2,), }            ", b"(2999999999999,), }")
    (tmp_path / "a.cs").write_bytes(content)
    with pytest.raises(InputError, match="is not a cryoSPARC"):
        read_cs(tmp_path / "a.cs")


def test_a_table_without_rows_is_read(tmp_path):
    write_cs(tmp_path / "a.cs", table([]))
    assert len(read_cs(tmp_path / "a.cs")) == 0
