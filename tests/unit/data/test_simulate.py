"""Simulated sets: their statistics, their files, and that they can be repeated."""

import math
from dataclasses import replace
from pathlib import Path

import gemmi
import pytest
import torch

from cryoinfer.data.examples import EXAMPLE_NAMES
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig, simulate
from cryoinfer.data.simulated_acquisition import CONTRAST, draw_contrast
from cryoinfer.data.simulation_presets import simulation_preset
from cryoinfer.data.structure_names import PRESET_NAMES
from cryoinfer.errors import InputError, OutputError, ResourceError
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.conventions.relion import RelionParticles
from cryoinfer.io.mrc import StackFile, read_map
from cryoinfer.physics.noise import radial_power


class CountingMonitor(SilentMonitor):
    """Remembers the steps that it was told of."""

    def __init__(self) -> None:
        self.total = 0
        self.done = 0

    def stage(self, name: str, total: int) -> None:
        assert name == "simulate"
        self.total = total

    def advance(self, steps: int = 1) -> None:
        self.done += steps


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SimulationConfig:
    """Return a small set of a chain of forty carbons, off the origin."""
    path = tmp_path_factory.mktemp("model") / "chain.pdb"
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(40, 3, generator=generator, dtype=torch.float64) * 2
    chain = gemmi.Chain("A")
    for number, position in enumerate(steps.cumsum(0) + 50, 1):
        residue = gemmi.Residue()
        residue.name, residue.seqid = "GLY", gemmi.SeqId(number, " ")
        atom = gemmi.Atom()
        atom.name, atom.element = "CA", gemmi.Element("C")
        atom.pos = gemmi.Position(*position.tolist())
        residue.add_atom(atom)
        chain.add_residue(residue)
    structure, model = gemmi.Structure(), gemmi.Model(1)
    model.add_chain(chain)
    structure.add_model(model)
    structure.write_pdb(str(path))
    return SimulationConfig(
        structure=str(path), n=300, box=24, pixel_size_angstrom=3.0, snr_db=None
    )


def all_images(simulation: Simulation) -> torch.Tensor:
    return torch.cat([batch.images for batch in simulation.batches()])


@pytest.mark.parametrize("snr_db", [5.0, -10.0])
@pytest.mark.parametrize("noise", ["white", "coloured"])
def test_the_signal_to_noise_ratio_is_met(
    config: SimulationConfig, snr_db: float, noise: str
) -> None:
    silent = replace(config, defocus_range_angstrom=(5000.0, 20000.0))
    clean = all_images(Simulation.of(silent))
    noisy = all_images(Simulation.of(replace(silent, snr_db=snr_db, noise=noise)))
    measured = 10 * math.log10(clean.var() / (noisy - clean).var())
    # 172,800 pixels, correlated where coloured: 1 % of the variance is 0.04 dB.
    assert measured == pytest.approx(snr_db, abs=0.15)


def test_coloured_noise_falls_tenfold(config: SimulationConfig) -> None:
    clean = all_images(Simulation.of(config))
    noisy = all_images(Simulation.of(replace(config, snr_db=0.0, noise="coloured")))
    disc = FourierDisc.of_box(24, 11)
    power = radial_power(disc.gather(image_to_fourier(noisy - clean)), disc)
    # The Lorentzian has fallen to 0.4 of its peak at ring 1-2 of so small a box.
    assert 4 < float(power[1] / power[11]) < 12


def test_sets_repeat_with_the_seed(config: SimulationConfig) -> None:
    noisy = replace(config, snr_db=0.0, max_shift_angstrom=5.0)
    first, again = Simulation.of(noisy), Simulation.of(noisy)
    assert torch.equal(all_images(first), all_images(again))
    assert torch.equal(all_images(first), all_images(first))
    other = Simulation.of(replace(noisy, seed=1))
    assert not torch.equal(first.latents.pose.rotation, other.latents.pose.rotation)


def test_the_draws_do_not_depend_on_the_threads(config: SimulationConfig) -> None:
    noisy = replace(config, snr_db=0.0)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = all_images(Simulation.of(noisy))
        torch.set_num_threads(2)
        two = all_images(Simulation.of(noisy))
    finally:
        torch.set_num_threads(before)
    # Draws are the same; float32 sums may be taken in another order.
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_shifts_and_defoci_fill_their_ranges(config: SimulationConfig) -> None:
    simulation = Simulation.of(
        replace(
            config, max_shift_angstrom=6.0, defocus_range_angstrom=(4000.0, 12000.0)
        )
    )
    shift = simulation.latents.pose.shift_angstrom
    assert 5.5 < float(shift.abs().max()) <= 6
    # 600 uniform values: the mean is known to 6 / sqrt(3 * 600) = 0.14.
    assert abs(float(shift.mean())) < 0.7
    optics = simulation.optics
    assert 4000 <= float(optics.defocus_u_angstrom.min()) < 4300
    assert 11700 < float(optics.defocus_u_angstrom.max()) <= 12000
    assert torch.equal(optics.defocus_u_angstrom, optics.defocus_v_angstrom)
    assert set(optics.voltage_kv.tolist()) == {300.0}


def test_given_defoci_can_be_off(config: SimulationConfig, tmp_path: Path) -> None:
    wrong = replace(
        config,
        defocus_range_angstrom=(4000.0, 12000.0),
        defocus_error_angstrom=2000.0,
    )
    star = simulate(wrong, tmp_path / "wrong", SilentMonitor())
    given, true = (
        Particles.load(path).optics for path in (star, star.with_name("truth.star"))
    )
    error = given.defocus_u_angstrom - true.defocus_u_angstrom
    assert 1900 < float(error.abs().max()) <= 2000.001
    # 600 uniform values: the mean is known to 2000 / sqrt(3 * 600) = 47.
    assert abs(float(error.mean())) < 240
    torch.testing.assert_close(
        error, given.defocus_v_angstrom - true.defocus_v_angstrom
    )


def test_contrast_multiplies_the_signal_alone(
    config: SimulationConfig, tmp_path: Path
) -> None:
    uneven = Simulation.of(replace(config, contrast_sd=0.3))
    even = Simulation.of(config)
    first, other = (next(iter(one.batches())).images for one in (even, uneven))
    rows = torch.arange(len(first))
    signal = even.model.mean(even.latents[rows], even.optics[rows])
    contrast = uneven.contrast[rows, None, None]
    # Single precision, of pixels whose noise is of order 1.
    torch.testing.assert_close(
        other - first, (contrast - 1) * signal, atol=1e-5, rtol=0
    )
    simulate(replace(config, contrast_sd=0.3), tmp_path / "set")
    written = Particles.load(tmp_path / "set" / "truth.star").table.results
    # As a file holds it, with six digits.
    assert written[CONTRAST] == pytest.approx(uneven.contrast.numpy(), abs=2e-6)


def test_contrast_has_its_spread() -> None:
    drawn = draw_contrast(100_000, 0.2, seed=0)
    # Four standard errors of mean and spread.
    assert float(drawn.mean()) == pytest.approx(1.0, abs=0.2 * 4 / 100_000**0.5)
    assert float(drawn.std()) == pytest.approx(0.2, rel=4 / 200_000**0.5)


@pytest.mark.parametrize(
    ("views", "expected"), [("uniform", 0.067), ("preferred", 0.533)]
)
def test_preferred_views_lie_near_the_axis(
    config: SimulationConfig, views: str, expected: float
) -> None:
    """A cap of 30 degrees is 6.7 % of the sphere."""
    simulation = Simulation.of(replace(config, n=3000, views=views))
    rotation = simulation.latents.pose.rotation
    near = rotation[:, 2, 2] > math.cos(math.radians(30))
    # Binomial: at most 0.9 % a sigma.
    assert float(near.double().mean()) == pytest.approx(expected, abs=0.04)
    identity = torch.eye(3, dtype=torch.float64).expand(3000, 3, 3)
    torch.testing.assert_close(rotation @ rotation.mT, identity, atol=1e-12, rtol=0)
    assert float(torch.linalg.det(rotation).min()) > 0.99


def test_optics_groups_differ(config: SimulationConfig) -> None:
    simulation = Simulation.of(
        replace(config, optics_groups=2, defocus_range_angstrom=(5000.0, 6000.0))
    )
    optics = simulation.optics
    assert optics.group.bincount().tolist() == [150, 150]
    assert optics.pixel_size_angstrom[:2].tolist() == pytest.approx([3.0, 3.3])
    assert optics.voltage_kv[:2].tolist() == [300.0, 200.0]
    assert all_images(simulation).shape == (300, 24, 24)


def test_files_hold_what_was_simulated(
    config: SimulationConfig, tmp_path: Path
) -> None:
    noisy = replace(
        config,
        snr_db=0.0,
        max_shift_angstrom=4.0,
        defocus_range_angstrom=(5000.0, 6000.0),
        optics_groups=2,
    )
    monitor = CountingMonitor()
    star = simulate(noisy, tmp_path / "set", monitor)
    assert (monitor.total, monitor.done) == (300, 300)
    simulation = Simulation.of(noisy)
    file = StackFile.of(tmp_path / "set" / "particles.mrcs")
    stack = torch.from_numpy(file.read(torch.arange(len(file)).numpy()))
    assert torch.equal(stack, all_images(simulation))

    particles = RelionParticles.read(star).table()
    truth = RelionParticles.read(tmp_path / "set" / "truth.star").table()
    assert particles.pose is None
    assert particles.images.paths == ("particles.mrcs",)
    assert truth.pose is not None
    # Six decimals of a degree, or of an angstrom.
    torch.testing.assert_close(
        truth.pose.rotation, simulation.latents.pose.rotation, atol=1e-7, rtol=0
    )
    torch.testing.assert_close(
        truth.pose.shift_angstrom,
        simulation.latents.pose.shift_angstrom,
        atol=1e-6,
        rtol=0,
    )
    for table in (particles, truth):
        assert torch.equal(table.optics.group, simulation.optics.group)
        torch.testing.assert_close(
            table.optics.defocus_u_angstrom,
            simulation.optics.defocus_u_angstrom,
            atol=1e-6,
            rtol=0,
        )
    density = read_map(tmp_path / "set" / "truth.mrc")
    assert density.pixel_size_angstrom == pytest.approx(3.0)
    assert torch.equal(torch.tensor(density.density), simulation.density())


def test_without_a_ctf_the_star_has_no_defocus(
    config: SimulationConfig, tmp_path: Path
) -> None:
    star = simulate(replace(config, n=3), tmp_path, SilentMonitor())
    text = star.read_text()
    assert "Defocus" not in text
    assert "rlnAngle" not in text
    assert not RelionParticles.read(star).table().has_ctf


def test_a_taken_folder_is_refused(config: SimulationConfig, tmp_path: Path) -> None:
    simulate(replace(config, n=2), tmp_path, SilentMonitor())
    with pytest.raises(OutputError, match="another output folder"):
        simulate(config, tmp_path, SilentMonitor())


def test_a_file_in_place_of_the_folder_is_refused(
    config: SimulationConfig, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Cannot make"):
        simulate(config, tmp_path / "file" / "set", SilentMonitor())


def test_a_structure_larger_than_the_box_is_refused(config: SimulationConfig) -> None:
    with pytest.raises(InputError, match="larger box"):
        Simulation.of(replace(config, pixel_size_angstrom=1.0))
    with pytest.raises(InputError, match="larger box"):
        Simulation.of(replace(config, max_shift_angstrom=30.0))


def test_an_unknown_structure_is_refused(config: SimulationConfig) -> None:
    with pytest.raises(InputError, match=EXAMPLE_NAMES[0]):
        Simulation.of(replace(config, structure="nothing.pdb"))


@pytest.mark.parametrize(
    "change",
    [
        {"n": 0},
        {"n": 10**12},
        {"box": 7},
        {"box": 10**6},
        {"pixel_size_angstrom": 0.0},
        {"pixel_size_angstrom": math.inf},
        {"pixel_size_angstrom": math.nan},
        {"pixel_size_angstrom": 1000.0},
        {"snr_db": math.inf},
        {"snr_db": math.nan},
        {"snr_db": 1e9},
        {"defocus_range_angstrom": (2.0, 1.0)},
        {"defocus_range_angstrom": (0.0, 0.0)},
        {"defocus_range_angstrom": (1.0, math.inf)},
        {"defocus_range_angstrom": (math.nan, 1.0)},
        {"max_shift_angstrom": -1.0},
        {"max_shift_angstrom": math.inf},
        {"max_shift_angstrom": math.nan},
        {"noise": "pink"},
        {"views": "side"},
        {"optics_groups": 0},
        {"optics_groups": 11, "n": 10},
        {"optics_groups": 2000},  # the last one's pixel has 160 A
        {"contrast_sd": -0.1},
        {"contrast_sd": math.nan},
        {"b_factor_angstrom2": -1.0},
        {"b_factor_angstrom2": math.nan},
        {"defocus_error_angstrom": math.inf},
        {"seed": 2**64},
        {"seed": -1},
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        SimulationConfig(**change)


def test_presets_are_those_of_the_paper() -> None:
    presets = [simulation_preset(name) for name in PRESET_NAMES]
    assert [p.snr_db for p in presets] == [None, 10, 5, 0, -5, -10, 0]
    assert {(p.n, p.box, p.pixel_size_angstrom) for p in presets} == {(9000, 128, 0.8)}
    assert [p.defocus_range_angstrom for p in presets[5:]] == [None, (4000, 12000)]
    with pytest.raises(InputError, match="cryoposenet-a"):
        simulation_preset("cryoposenet-z")


def test_sets_without_room_are_refused_before_anything_is_written(
    config: SimulationConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OutputError, match="images of 4096 pixels take"):
        simulate(replace(config, n=10**9, box=4096), tmp_path / "a", SilentMonitor())
    monkeypatch.setattr("psutil.virtual_memory", lambda: NothingFree())
    with pytest.raises(ResourceError, match="of memory"):
        simulate(config, tmp_path / "b", SilentMonitor())
    assert list(tmp_path.iterdir()) == []


class NothingFree:
    available = 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"optics_groups": 11, "n": 10}, r"raise --n \(10\), found 11\.$"),
        ({"optics_groups": 0}, r"must be 1 to the number of images: .*, found 0\.$"),
        (
            {"optics_groups": 2000},
            r"lower --optics-groups or --pixel-size \(it would have 161 A\)",
        ),
    ],
)
def test_too_many_optics_groups_have_one_cause_each(
    change: dict[str, int], said: str
) -> None:
    with pytest.raises(InputError, match=said) as error:
        SimulationConfig(**change)
    assert ("--pixel-size" in str(error.value)) != ("--n" in str(error.value))
