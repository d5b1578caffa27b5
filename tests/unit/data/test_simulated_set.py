"""Sets of several molecules, of parts, along paths and with junk, and their truth."""

from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pytest
import torch
from torch import Tensor

from cryoinfer.data.junk import JUNK, Junk, parse_junk
from cryoinfer.data.model_parts import ModelParts
from cryoinfer.data.path_density import PathDensity
from cryoinfer.data.simulate import Simulation, SimulationConfig, simulate
from cryoinfer.data.simulated_path import PATH, TURN
from cryoinfer.data.simulated_set import Composition
from cryoinfer.data.turns import Turn
from cryoinfer.errors import InputError
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.atoms import read_atoms
from cryoinfer.io.conventions.relion import RelionParticles
from cryoinfer.io.mrc import read_map
from cryoinfer.io.star import read_star

N = 400
FOUR_SIGMA = 4.0
CHAINS = {"A": 30, "B": 10}


def write_model(path: Path, chains: dict[str, int], seed: int = 0) -> Path:
    """Write chains of carbons that wander."""
    generator = torch.Generator().manual_seed(seed)
    structure, model = gemmi.Structure(), gemmi.Model(1)
    for name, count in chains.items():
        steps = 2.2 * torch.randn(count, 3, generator=generator, dtype=torch.float64)
        chain = gemmi.Chain(name)
        for number, position in enumerate(steps.cumsum(0) + 40, 1):
            residue = gemmi.Residue()
            residue.name, residue.seqid = "GLY", gemmi.SeqId(number, " ")
            atom = gemmi.Atom()
            atom.name, atom.element = "CA", gemmi.Element("C")
            atom.pos = gemmi.Position(*position.tolist())
            residue.add_atom(atom)
            chain.add_residue(residue)
        model.add_chain(chain)
    structure.add_model(model)
    structure.write_pdb(str(path))
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SimulationConfig:
    path = write_model(tmp_path_factory.mktemp("model") / "two.pdb", CHAINS)
    return SimulationConfig(
        str(path), n=N, box=24, pixel_size_angstrom=4.0, snr_db=None
    )


def of(config: SimulationConfig, **parts: object) -> SimulationConfig:
    return replace(config, composition=Composition(**parts))  # type: ignore[arg-type]


def images(simulation: Simulation) -> Tensor:
    return torch.cat([batch.images for batch in simulation.batches()])


def require_shares(counts: Tensor, shares: tuple[float, ...]) -> None:
    """Ask for each count within four standard deviations of its binomial law."""
    n = int(counts.sum())
    for count, share in zip(counts.tolist(), shares, strict=True):
        assert abs(count - n * share) < FOUR_SIGMA * (n * share * (1 - share)) ** 0.5


def test_a_missing_part_lowers_the_mass_by_its_share(
    config: SimulationConfig, tmp_path: Path
) -> None:
    without = (ModelParts.parse("chain B"), ModelParts.parse("A:1-15, B:3"))
    shares = (0.5, 0.3, 0.2)
    wanted = of(config, without=without, population=shares)
    simulation = Simulation.of(wanted)
    number = simulation.drawn.class_number
    assert number is not None
    require_shares(torch.bincount(number, minlength=4)[1:], shares)
    # The sum of an image is the scattering of its atoms, which are all alike.
    mass = images(simulation).sum((1, 2))
    whole = mass[number == 1].mean()
    for kind, left in ((1, 40), (2, 30), (3, 24)):
        # Single precision of sums of 40 waves.
        assert mass[number == kind].numpy() == pytest.approx(
            float(whole) * left / 40, rel=1e-4
        )
    star = simulate(wanted, tmp_path / "set", SilentMonitor())
    truth = RelionParticles.read(star.with_name("truth.star")).table()
    assert truth.class_number is not None
    assert torch.equal(truth.class_number, number)
    assert RelionParticles.read(star).table().class_number is None
    maps = [
        float(read_map(star.with_name(name)).density.sum(dtype=np.float64))
        for name in ("truth.mrc", "truth_class_2.mrc", "truth_class_3.mrc")
    ]
    assert maps == pytest.approx([maps[0], 0.75 * maps[0], 0.6 * maps[0]], rel=1e-4)


def test_parts_stay_where_they_are_in_the_whole(config: SimulationConfig) -> None:
    simulation = Simulation.of(of(config, without=(ModelParts.parse("B"),)))
    whole, fewer = (one.coordinates_angstrom for one in simulation.shown.molecules)
    assert torch.equal(whole[:30], fewer)


def test_further_molecules_are_centred_and_conformations_superposed(
    config: SimulationConfig, tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other.pdb", {"A": 20}, seed=1)
    turned = gemmi.read_structure(config.structure)
    moved = tmp_path / "moved.pdb"
    move = gemmi.Transform()
    move.mat.fromlist([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    move.vec.fromlist([5, -8, 3])
    turned[0].transform_pos_and_adp(move)
    turned.write_pdb(str(moved))
    simulation = Simulation.of(of(config, also=(str(other), str(moved))))
    first, second, third = simulation.shown.molecules
    # Three decimals of a PDB file.
    assert float(second.coordinates_angstrom.mean(0).abs().max()) < 1e-3
    apart = first.coordinates_angstrom - third.coordinates_angstrom
    assert float(apart.abs().max()) < 3e-3


def test_junk_is_flagged_in_the_truth_and_shows_no_particle(
    config: SimulationConfig, tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other.pdb", {"A": 20}, seed=1)
    junk = (Junk("ice", 0.2), Junk("edge", 0.1), Junk(str(other), 0.1))
    wanted = of(config, junk=junk)
    simulation = Simulation.of(wanted)
    kind = simulation.drawn.junk
    assert kind is not None
    require_shares(torch.bincount(kind, minlength=4), (0.6, 0.2, 0.1, 0.1))
    shown = images(simulation)
    assert float(shown[kind == 1].abs().max()) == 0
    mass = shown.sum((1, 2))
    particle = float(mass[kind == 0].mean())
    assert mass[kind == 3].numpy() == pytest.approx(particle / 2, rel=1e-4)
    edges = shown[kind == 2]
    # Film on one side, nothing on the other; single precision of a transform.
    assert float(edges.flatten(1).amin(1).abs().max()) < 1e-4
    assert edges.flatten(1).amax(1).min() == pytest.approx(22.0)
    # As much film as nothing, on average: the edge is up to a third of the box off.
    assert float(edges.mean()) == pytest.approx(11.0, rel=0.2)
    star = simulate(wanted, tmp_path / "set", SilentMonitor())
    truth = read_star(star.with_name("truth.star")).blocks[-1].columns
    assert np.asarray(truth[JUNK], dtype=int).tolist() == kind.tolist()
    assert JUNK not in star.read_text()


def test_junk_does_not_change_the_noise(config: SimulationConfig) -> None:
    noisy = replace(config, snr_db=0.0)
    clean = Simulation.of(noisy).model.noise.pixel_variance(24)
    with_junk = of(noisy, junk=(Junk("edge", 0.5),))
    # The variance over half of 400 views of a lump, known to a few per cent.
    assert Simulation.of(with_junk).model.noise.pixel_variance(24) == pytest.approx(
        clean, rel=0.1
    )


def test_a_path_between_models_has_the_density_that_was_asked_for(
    config: SimulationConfig, tmp_path: Path
) -> None:
    frame = gemmi.read_structure(config.structure)
    for number, residue in enumerate(frame[0]["B"]):
        residue[0].pos += gemmi.Position(0.3 * number, 0, 0)
    end = tmp_path / "end.pdb"
    frame.write_pdb(str(end))
    density = PathDensity.parse("0.7 N(0,0.05) + 0.3 N(1,0.05)")
    wanted = replace(config, to=str(end), along=density)
    star = simulate(wanted, tmp_path / "set", SilentMonitor())
    table = RelionParticles.read(star.with_name("truth.star")).table()
    place = torch.from_numpy(table.results[PATH])
    number = table.class_number
    assert number is not None
    require_shares(torch.bincount(number)[1:], (0.7, 0.3))
    assert float(place.min()) >= 0
    assert float(place.max()) <= 1
    assert torch.equal(place > 0.5, number == 2)
    # Half a normal: its mean is 0.798 sd, which 280 draws know to 0.603 sd / 16.7.
    assert float(place[number == 1].mean()) == pytest.approx(0.0399, abs=4 * 0.0018)
    simulation = Simulation.of(wanted)
    structure = simulation.shown.first.structure
    middle = structure.at(torch.tensor([0.5])).coordinates_angstrom
    ends = [structure.at(torch.tensor([x])).coordinates_angstrom for x in (0.0, 1.0)]
    torch.testing.assert_close(middle, (ends[0] + ends[1]) / 2, atol=1e-5, rtol=0)
    uniform = Simulation.of(replace(wanted, along=None)).latents.conformation[:, 0]
    # The sd of the mean of 400 uniform numbers is 0.0144.
    assert float(uniform.mean()) == pytest.approx(0.5, abs=4 * 0.0144)


def test_a_turn_is_a_rotation_about_its_hinge(
    config: SimulationConfig, tmp_path: Path
) -> None:
    turn = Turn.parse("A:1-10, B about A:12 A:20 by 360 in 8")
    wanted = replace(config, turn=turn)
    simulation = Simulation.of(wanted)
    model = read_atoms(config.structure)
    at = model.coordinates_angstrom
    frames = turn.frames(model, "two")
    assert frames.shape == (8, 40, 3)
    assert frames[0] == pytest.approx(at)
    # The fourth of eight steps is half a turn: r -> 2 (r . u) u - r about the axis.
    axis = (at[19] - at[11]) / np.linalg.norm(at[19] - at[11])
    away = at - at[11]
    half = 2 * (away @ axis)[:, None] * axis - away + at[11]
    moving = np.r_[0:10, 30:40]
    assert frames[4][moving] == pytest.approx(half[moving], abs=1e-9)
    assert frames[:, 10:30] == pytest.approx(np.repeat(at[None, 10:30], 8, 0))
    star = simulate(wanted, tmp_path / "set", SilentMonitor())
    truth = read_star(star.with_name("truth.star")).blocks[-1].columns
    degrees = np.asarray(truth[TURN], dtype=float)
    assert sorted(set(degrees)) == [45.0 * step for step in range(8)]
    counts = torch.from_numpy(np.unique(degrees, return_counts=True)[1])
    require_shares(counts, (1 / 8,) * 8)
    assert torch.equal(
        simulation.latents.conformation[:, 0] * 45, torch.from_numpy(degrees)
    )


def test_a_turn_without_steps_takes_any_angle(config: SimulationConfig) -> None:
    turn = Turn.parse("B about A:12 A:20 by -60")
    wanted = replace(config, turn=turn, along=PathDensity.parse("U(0.5,1)"))
    simulation = Simulation.of(wanted)
    degrees = simulation.shown.columns(simulation.drawn)[TURN]
    assert -60 <= degrees.min() < -59
    assert -31 < degrees.max() <= -30
    assert len(np.unique(degrees)) == N


def test_sets_repeat_with_the_seed(config: SimulationConfig) -> None:
    wanted = of(config, without=(ModelParts.parse("B"),), junk=parse_junk("0.2"))
    assert torch.equal(images(Simulation.of(wanted)), images(Simulation.of(wanted)))


@pytest.mark.parametrize(
    ("read", "text", "said"),
    [
        (ModelParts.parse, "C:1-2-3", "expected parts of a model"),
        (ModelParts.parse, "C:9-2", "numbers of residues ascend"),
        (PathDensity.parse, "N(0,0)", "a standard deviation is above 0"),
        (PathDensity.parse, "N(2,1)", "a path goes from 0 to 1"),
        (PathDensity.parse, "U(0.5,0.2)", "the ends of an interval ascend"),
        (PathDensity.parse, "0.7 N(0,1) + 0.4 N(1,1)", "shares of a density .* 1.1"),
        (PathDensity.parse, "bimodal", "expected a density along the path"),
        (Turn.parse, "C by 20", "expected a turn such as"),
        (Turn.parse, "C about A:1 A:9 by 0", "not 0"),
        (Turn.parse, "C about A:1 A:9 by 30 in 1", "2 to 10,000 conformations"),
        (parse_junk, "ice", "expected junk such as"),
        (parse_junk, "ice:1.5", "above 0 and below 1"),
        (parse_junk, "no.pdb:0.1", "is neither a file nor"),
    ],
)
def test_what_cannot_be_read_is_refused(read: object, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(text)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"without": "D"}, r"has no chain D: its chains are A \(1-30\), B \(1-10\)"),
        ({"without": "A, B"}, "nothing of .* is left without chain A, chain B"),
        ({"without": "B", "population": (0.5, 0.3)}, "add up to 1, found 0.5, 0.3"),
        ({"without": "B", "population": (1.0,)}, "for each of 2 molecules"),
        ({"population": (1.0,)}, "--population goes with"),
        ({"junk": (Junk("ice", 0.5), Junk("edge", 0.5))}, "must leave particles"),
        ({"along": PathDensity.parse("U(0,1)")}, "along what"),
        ({"to": "adenylate-kinase-open"}, "has 40 atoms, .* 1,656, and atom 1 is"),
        ({"turn": Turn.parse("A, B about A:1 A:9 by 9")}, "would turn"),
        ({"turn": Turn.parse("B about A:1 A:1 by 9")}, "0.0 A apart"),
        (
            {"turn": Turn.parse("B about A:1 A:9 by 9"), "without": "B"},
            "found both --turn and --also or --without",
        ),
        (
            {
                "turn": Turn.parse("B about A:1 A:9 by 9 in 3"),
                "along": PathDensity.parse("U(0,1)"),
            },
            r"leave out its number of conformations \(in 3\)",
        ),
    ],
)
def test_sets_that_cannot_be_are_refused(
    config: SimulationConfig, change: dict, said: str
) -> None:
    change = dict(change)
    parts = {
        name: change.pop(name) for name in ("population", "junk") if name in change
    }
    if "without" in change:
        parts["without"] = (ModelParts.parse(change.pop("without")),)
    with pytest.raises(InputError, match=said):
        Simulation.of(replace(of(config, **parts), **change))
