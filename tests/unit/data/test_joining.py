import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryoinfer.data.joining import is_further, join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.errors import InputError
from cryoinfer.interfaces import SilentMonitor

CONFIG = SimulationConfig(
    n=12,
    box=16,
    pixel_size_angstrom=6.4,
    defocus_range_angstrom=(5000.0, 9000.0),
    optics_groups=2,
)


def make(folder: Path, config: SimulationConfig) -> Particles:
    return Particles.load(simulate(config, folder, SilentMonitor()))


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Particles, Particles]:
    """Return two sets whose stacks have the same name in different folders."""
    second = replace(CONFIG, seed=1, pixel_size_angstrom=6.5)
    return make(tmp_path / "a", CONFIG), make(tmp_path / "b", second)


def test_joined_particles_are_those_of_the_parts(parts, tmp_path: Path) -> None:
    joined = join(parts).particles
    (tmp_path / "run").mkdir()
    joined.save(tmp_path / "run" / "joined.star")
    read = Particles.load(tmp_path / "run" / "joined.star")
    for found in (joined, read):
        assert len(found) == 24
        rows = torch.arange(24)
        expected = torch.cat([part.images(torch.arange(12)) for part in parts])
        assert torch.equal(found.images(rows), expected)
        for name in ("pixel_size_angstrom", "voltage_kv", "defocus_u_angstrom"):
            values = torch.cat([getattr(part.optics, name) for part in parts])
            torch.testing.assert_close(getattr(found.optics, name), values)


def test_groups_are_one_where_their_optics_are_the_same(parts) -> None:
    first, other = parts
    joined = join([first, other, first.select(torch.arange(6))])
    assert joined.groups == ({0: 0, 1: 1}, {0: 2, 1: 3}, {0: 0, 1: 1})
    assert joined.particles.optics.group.unique().tolist() == [0, 1, 2, 3]
    # What was joined keeps its numbers when more comes.
    again = join([joined.particles, other])
    assert again.groups == ({0: 0, 1: 1, 2: 2, 3: 3}, {0: 2, 1: 3})


def test_rounding_makes_no_other_optics(parts, tmp_path: Path) -> None:
    # cryoSPARC's values are of single precision: 0.1 is 0.100000001490116.
    part = parts[0]
    optics = part.optics
    single = {
        name: getattr(optics, name).float().double()
        for name in ("pixel_size_angstrom", "cs_mm", "amplitude_contrast")
    }
    assert not torch.equal(single["amplitude_contrast"], optics.amplitude_contrast)
    table = replace(part.table, optics=replace(optics, **single))
    rounded = replace(part, table=table)
    join([rounded]).particles.save(tmp_path / "joined.star")
    again = Particles.load(tmp_path / "joined.star")
    assert join([again, rounded, part]).groups == ({0: 0, 1: 1},) * 3


def test_particles_with_and_without_ctf_are_not_joined(parts, tmp_path: Path) -> None:
    plain = make(tmp_path / "c", replace(CONFIG, defocus_range_angstrom=None))
    with pytest.raises(InputError, match="a CTF for all particles or for none"):
        join([parts[0], plain])


def test_one_stack_named_twice_is_one(parts, tmp_path: Path) -> None:
    joined = join([parts[0], parts[0]]).particles
    assert len(joined.stacks) == 1
    shutil.rmtree(tmp_path / "b")
    assert len(joined.images(torch.arange(24))) == 24


def test_images_are_told_by_file_and_row(parts, tmp_path: Path) -> None:
    first, second = parts
    some, others = torch.arange(3, 8), torch.tensor([11, 0])
    known = [first.select(some), first.select(others)]
    further = torch.ones(12, dtype=torch.bool)
    further[some] = further[others] = False
    assert torch.equal(is_further(first, known), further)
    # Stacks of one name in two folders are two.
    assert bool(is_further(second, known).all())
    assert bool(is_further(first, []).all())
    twice = first.select(torch.tensor([3, 3, 4]))
    assert is_further(twice, []).tolist() == [True, False, True]
    # And by whichever way they are reached.
    (tmp_path / "link").symlink_to(tmp_path / "a")
    again = Particles.load(tmp_path / "link" / "particles.star")
    assert torch.equal(is_further(again, known), further)


def test_a_stack_that_has_grown_is_as_long_as_it_was_last(parts) -> None:
    first, _ = parts
    (stack,) = first.stacks
    short = replace(stack, shape=(6, *stack.shape[1:]))
    before = replace(first.select(torch.arange(6)), stacks=(short,))
    joined = join([before, first.select(torch.arange(6, 12))]).particles
    assert torch.equal(joined.images(torch.arange(12)), first.images(torch.arange(12)))


def test_groups_are_numbered_without_a_gap(parts, tmp_path: Path) -> None:
    """As they are when they are read again, with what was measured of each."""
    second = parts[0].select(torch.nonzero(parts[0].optics.group == 1).squeeze(1))
    joined = join([second])
    assert joined.groups == ({1: 0},)
    assert joined.given == (1,)
    joined.particles.save(tmp_path / "joined.star")
    again = Particles.load(tmp_path / "joined.star")
    assert torch.equal(again.optics.group, joined.particles.optics.group)
    # More of that group, and of the one before it, which looks the same.
    more = join([again, second, parts[0]], joined.given)
    assert more.groups == ({0: 0}, {1: 0}, {0: 1, 1: 0})
    assert more.given == (1, 0)
