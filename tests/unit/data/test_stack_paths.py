"""A name stands for the stack that the metadata mean, or for none."""

import os
import unicodedata

import pytest
import torch

from cryoinfer.data.check import check
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.io.star import read_star

HEAD = "data_particles\n\nloop_\n_rlnImageName #1\n"


def write_star(path, *names):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{i % 2 + 1}@{name}" for i, name in enumerate(names)]
    path.write_text(HEAD + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def make(tmp_path, stack):
    """Return a function that writes a stack below the test's folder."""

    def write(name, seed=0):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return stack(path, 2, 8, seed=seed)

    return write


def first_image(path, **options):
    return Particles.load(path, **options).images(torch.tensor([0]))[0]


def test_the_working_folder_is_not_looked_in(tmp_path, make, monkeypatch):
    make("A/a.mrcs", seed=1)
    right = make("B/a.mrcs", seed=2)
    write_star(tmp_path / "B/p.star", "a.mrcs")
    monkeypatch.chdir(tmp_path / "A")
    for path in ("../B/p.star", tmp_path / "B/p.star"):
        assert torch.equal(first_image(path), right[0])
    # Nor where there is none beside the metadata; but that it has one is told.
    write_star(tmp_path / "C/p.star", "a.mrcs")
    with pytest.raises(MissingFileError, match=r"working folder has a\.mrcs.*datadir"):
        Particles.load("../C/p.star")
    # A stack that is cut off is not hidden by a whole one.
    (tmp_path / "B/a.mrcs").write_bytes((tmp_path / "A/a.mrcs").read_bytes()[:-1])
    with pytest.raises(InputError, match="is cut off"):
        Particles.load("../B/p.star")


def test_the_root_of_a_project_is_above_the_metadata(tmp_path, make):
    right = make("project/Extract/job1/a.mrcs", seed=1)
    path = write_star(tmp_path / "project/Refine3D/job2/p.star", "Extract/job1/a.mrcs")
    assert torch.equal(first_image(path), right[0])


def test_the_longest_end_of_a_name_is_followed_in_datadir(tmp_path, make):
    first = make("data/job1/a.mrcs", seed=1)
    second = make("data/job2/a.mrcs", seed=2)
    make("data/a.mrcs", seed=3)
    path = write_star(tmp_path / "meta/p.star", "X/job1/a.mrcs", "/gone/job2/a.mrcs")
    particles = Particles.load(path, datadir=tmp_path / "data")
    assert torch.equal(particles.images(torch.tensor([0]))[0], first[0])
    assert torch.equal(particles.images(torch.tensor([1]))[0], second[1])


def test_two_names_that_would_become_one_file_are_told(tmp_path, make):
    make("data/a.mrcs")
    path = write_star(tmp_path / "meta/p.star", "job1/a.mrcs", "job2/a.mrcs")
    message = r"'job1/a\.mrcs' and 'job2/a\.mrcs'.*one file for both: .*data/a\.mrcs"
    with pytest.raises(InputError, match=message):
        Particles.load(path, datadir=tmp_path / "data")
    found = check(path, datadir=tmp_path / "data")
    assert any("one file for both" in f.message for f in found if f.severity == "error")
    # One name in two spellings is one name.
    path = write_star(tmp_path / "meta/q.star", "job1/a.mrcs", "./job1/../job1/a.mrcs")
    assert len(Particles.load(path, datadir=tmp_path / "data")) == 2


@pytest.mark.parametrize("above", [True, False])
def test_two_files_of_equal_claims_are_told(tmp_path, make, above):
    make("p/q/a.mrcs", seed=1)
    other = "p/a.mrcs" if above else "data/a.mrcs"
    make(other, seed=2)
    path = write_star(tmp_path / "p/q/p.star", "a.mrcs")
    options = {} if above else {"datadir": tmp_path / "data"}
    with pytest.raises(InputError, match=rf"may be .*q/a\.mrcs or .*{other}: .*differ"):
        Particles.load(path, **options)
    assert any("differ" in finding.message for finding in check(path, **options))
    # A copy, or a link, is no other file; of copies the user's own is read.
    (tmp_path / other).write_bytes((tmp_path / "p/q/a.mrcs").read_bytes())
    (found,) = Particles.load(path, **options).stacks
    assert found.path == tmp_path / ("p/q/a.mrcs" if above else other)
    (tmp_path / other).unlink()
    (tmp_path / other).symlink_to(tmp_path / "p/q/a.mrcs")
    assert len(Particles.load(path, **options)) == 1


def test_a_stack_that_is_named_itself_is_that_one(tmp_path, make):
    right = make("p/q/a.mrcs", seed=1)
    make("p/a.mrcs", seed=2)
    assert torch.equal(first_image(tmp_path / "p/q/a.mrcs"), right[0])


def test_a_name_is_written_that_leads_to_the_stack_alone(tmp_path, make):
    right = make("p/a.mrcs", seed=1)
    particles = Particles.load(write_star(tmp_path / "p/p.star", "a.mrcs"))
    # From a folder below that has another such file the old name would be another's.
    make("p/q/a.mrcs", seed=2)
    particles.save(tmp_path / "p/q/p.star")
    assert torch.equal(first_image(tmp_path / "p/q/p.star"), right[0])
    (tmp_path / "p/q/a.mrcs").unlink()
    particles.save(tmp_path / "p/q/p.star")
    name = read_star(tmp_path / "p/q/p.star").blocks[0].columns["rlnImageName"][0]
    assert name == "1@a.mrcs"


def test_a_folder_that_is_none_is_told(tmp_path, make):
    make("a.mrcs")
    path = write_star(tmp_path / "p.star", "a.mrcs")
    for folder in (tmp_path / "none", tmp_path / "a.mrcs"):
        with pytest.raises(MissingFileError, match="--datadir: there is no folder"):
            Particles.load(path, datadir=folder)
        assert "no folder" in check(path, datadir=folder)[0].message


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\u0000b", ".", "loop.mrcs", "pipe"])
def test_names_of_no_file_are_missing(tmp_path, name):
    (tmp_path / "loop.mrcs").symlink_to(tmp_path / "loop.mrcs")
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "p.star"
    path.write_text(f'{HEAD}"1@{name}"\n')
    with pytest.raises(InputError, match=r"missing|is not text|must look") as error:
        Particles.load(path)
    assert len(str(error.value)) < 1000
    assert check(path)[0].severity == "error"


@pytest.mark.parametrize("folder", ["Müller".encode(), b"M\xfcller", b"it's # 1"])
@pytest.mark.parametrize("ending", [".star", ".cs"])
def test_folders_of_any_name(tmp_path, stack, folder, ending):
    inside = tmp_path / os.fsdecode(folder)
    inside.mkdir()
    images = stack(tmp_path / "a.mrcs", 2, 8)
    (tmp_path / "a.mrcs").rename(inside / "a.mrcs")
    particles = Particles.load(inside / "a.mrcs")
    # What is written can be read, there, elsewhere, and in the other format.
    for target in (inside / f"p{ending}", tmp_path / f"p{ending}"):
        particles.save(target)
        again = Particles.load(target)
        assert torch.equal(again.images(torch.arange(2)), images)
        again.save(target.with_suffix(".star"))
        last = Particles.load(target.with_suffix(".star"))
        assert torch.equal(last.images(torch.arange(2)), images)
        assert not [f for f in check(target) if f.severity == "error"]


def test_accents_may_be_apart_from_their_letters(tmp_path, make):
    composed, apart = (unicodedata.normalize(f, "Müller") for f in ("NFC", "NFD"))
    for named, there in ((composed, apart), (apart, composed)):
        right = make(f"{there}/a.mrcs", seed=1)
        path = write_star(tmp_path / "p.star", f"{named}/a.mrcs")
        assert torch.equal(first_image(path), right[0])
        (tmp_path / there / "a.mrcs").unlink()
        with pytest.raises(MissingFileError):
            Particles.load(path)


def test_lists_of_stacks(tmp_path, make):
    make("one.mrcs", seed=1)
    make("two.mrcs", seed=2)
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfone.mrcs\r\n\r\n  two.mrcs \r\n")
    assert len(Particles.load(path)) == 4
    for text, message in (
        ("list.txt\n", "expected one .mrcs or .mrc file a line"),
        ("one.mrcs\none.mrcs\n", "more than once"),
        ("one.mrcs\0", "is not text"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            Particles.load(path)
        assert check(path)[0].severity == "error"
