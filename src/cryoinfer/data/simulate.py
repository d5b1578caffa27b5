"""Simulated particles whose truth is known."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.model_in_box import in_box
from cryoinfer.data.motions import Motion
from cryoinfer.data.path_density import PathDensity
from cryoinfer.data.simulated_acquisition import (
    CONTRAST,
    ImagePower,
    Views,
    draw_contrast,
    draw_optics,
    draw_poses,
    measure_power,
    noise_of_variance,
    with_defocus_error,
)
from cryoinfer.data.simulated_path import PathSource
from cryoinfer.data.simulated_set import (
    ONE_MOLECULE,
    Composition,
    DrawnParticles,
    SimulatedSet,
)
from cryoinfer.data.simulated_structure import SimulatedStructure
from cryoinfer.data.simulation_record import (
    FORMATION,
    formation_json,
    particle_table,
)
from cryoinfer.data.simulation_rules import require_room, require_simulable
from cryoinfer.data.turns import Turn
from cryoinfer.errors import InputError, OutputError
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.io.conventions.relion import table_to_relion
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.io.mrc import StackWriter, write_map
from cryoinfer.physics.detector import CountingDetector
from cryoinfer.physics.image_model import ImageModel
from cryoinfer.physics.multislice import multislice_images
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch

TRUE_MAP = "truth_class_{}.mrc"
"""Of a molecule or assembly, from the second on."""

_BATCH = 250
_IMAGES_FOR_SIGNAL = 1000


@dataclass(frozen=True)
class SimulationConfig:
    """What to simulate.

    Attributes
    ----------
    structure : str
        Name of an example (:data:`cryoinfer.data.structure_names.EXAMPLE_NAMES`), or
        path of an mmCIF or PDB file.
    n : int
        Number of images.
    box : int
        Their size in pixels.
    pixel_size_angstrom : float
    snr_db : float or None
        ``10 log10(var(signal) / var(noise))``, the signal's variance over all pixels
        of the set after the CTF; None for no noise, and for that of a detector.
    defocus_range_angstrom : tuple of two floats, or None
        Defoci are uniform in it, without astigmatism; None for no CTF.
    max_shift_angstrom : float
        Shifts are uniform up to it in x and in y.
    noise : "white" or "coloured"
        Coloured noise falls tenfold from low to high frequency.
    views : "uniform", "preferred" or "one"
        Preferred: half of the particles are seen from within 30 degrees of +z. One:
        all are seen along the structure's own z, turned in the plane by any angle.
    optics_groups : int
        Particles are dealt to the groups in turn. The first is at 300 kV; each
        further one has a pixel larger by a tenth, and every second one 200 kV.
    b_factor_angstrom2 : float
        Blurs the structure.
    contrast_sd : float
        Of what the signal of a particle is multiplied by, about 1.
    motions : tuple of Motion
        Along normal modes; without any, and without a path, the structure is rigid.
    trajectory : str or None
        Path of a trajectory (DCD, XTC, or mmCIF or PDB with several models) of the
        structure's file: particles show frames of it, all alike likely.
    to : str or None
        Another structure of the same atoms: particles lie on the straight way to it.
    turn : Turn or None
        Of a part about a hinge.
    along : PathDensity or None
        How particles are distributed along the trajectory, the way or the turn.
    composition : Composition
        Further molecules, assemblies without parts, and junk.
    defocus_error_angstrom : float
        Given defoci are off by up to it, uniformly; ``truth.star`` has the true ones.
    scattering : "weak-phase" or "multislice"
        Weak-phase images are the CTF times the projection. Multislice images are those
        of waves through slices of atoms (:mod:`cryoinfer.physics.multislice`), which
        thick and heavy specimens need; they need a CTF, and one set of atoms.
    detector : CountingDetector or None
        Whose counts are the noise. Images are scaled as those without.
    seed : int
        Of all that is random; threads change no more than last digits.
    """

    structure: str = "adenylate-kinase-open"
    n: int = 10_000
    box: int = 128
    pixel_size_angstrom: float = 0.8
    snr_db: float | None = -10.0
    defocus_range_angstrom: tuple[float, float] | None = None
    max_shift_angstrom: float = 0.0
    noise: Literal["white", "coloured"] = "white"
    views: Views = "uniform"
    optics_groups: int = 1
    b_factor_angstrom2: float = 0.0
    contrast_sd: float = 0.0
    motions: tuple[Motion, ...] = ()
    trajectory: str | None = None
    to: str | None = None
    turn: Turn | None = None
    along: PathDensity | None = None
    composition: Composition = ONE_MOLECULE
    defocus_error_angstrom: float = 0.0
    scattering: Literal["weak-phase", "multislice"] = "weak-phase"
    detector: CountingDetector | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be simulated."""
        require_simulable(vars(self))

    def path_source(self) -> PathSource | None:
        """Return where the frames of a path come from, if there is one."""
        if self.trajectory is None and self.to is None and self.turn is None:
            return None
        return PathSource(self.trajectory, self.to, self.turn, self.along)


@dataclass(frozen=True)
class Simulation:
    """A simulated set: its truth, and its images on demand.

    Attributes
    ----------
    config : SimulationConfig
    shown : SimulatedSet
    drawn : DrawnParticles
        What each image shows.
    model : ImageModel
        Of what is shown, in noise; without noise, and of counts, its spectrum is 0.
    latents : Latents
        The truth, float64, length n.
    optics : Optics
        Of length n.
    contrast : Tensor of float32, shape (n,)
        What the signal of each is multiplied by.
    noise_seed : int
        Of the noise, so that it can be drawn again.
    signal_to_noise : float
        Ratio of variances of the first 1,000 particles; infinity without noise.
    """

    config: SimulationConfig
    shown: SimulatedSet
    drawn: DrawnParticles
    model: ImageModel
    latents: Latents
    optics: Optics
    contrast: Tensor
    noise_seed: int
    signal_to_noise: float = math.inf

    @classmethod
    def of(cls, config: SimulationConfig) -> "Simulation":
        """Draw the truth and set the noise by the signal of the first 1,000 particles.

        Raises
        ------
        InputError
            If the structure is neither an example nor a readable file, does not fit
            into the box, or its trajectory cannot be used.
        """
        generator = torch.Generator().manual_seed(config.seed)
        shown = _shown(config)
        optics = draw_optics(
            config.n,
            config.optics_groups,
            config.pixel_size_angstrom,
            config.defocus_range_angstrom,
            generator,
        )
        pose = draw_poses(config.n, config.views, config.max_shift_angstrom, generator)
        zero = torch.zeros(config.n, dtype=torch.float64)
        drawn = shown.draw(config.n, generator)
        latents = Latents(pose, zero, drawn.conformation)
        noise_seed = int(torch.randint(2**62, (), generator=generator))
        silent = GaussianNoise.white(0.0, config.box)
        model = ImageModel(shown.structure, silent, config.box)
        contrast = draw_contrast(config.n, config.contrast_sd, noise_seed)
        simulation = cls(
            config, shown, drawn, model, latents, optics, contrast, noise_seed
        )
        if config.snr_db is None and config.detector is None:
            return simulation
        power = simulation._power()
        if config.snr_db is None:
            return replace(simulation, signal_to_noise=power.signal / power.noise)
        ratio = 10 ** (config.snr_db / 10)
        noise = noise_of_variance(config.noise, config.box, power.signal / ratio)
        model = replace(model, noise=noise)
        return replace(simulation, model=model, signal_to_noise=ratio)

    def batches(self) -> Iterator[ParticleBatch]:
        """Yield the images in order; every time the same."""
        generator = torch.Generator().manual_seed(self.noise_seed)
        for index in torch.arange(self.config.n).split(_BATCH):
            optics = self.optics[index]
            images = self.signal(index) * self.contrast[index, None, None]
            if self.config.detector is None:
                noise = self.model.noise.sample(len(index), self.config.box, generator)
                images = images + noise.to(images)
            else:
                images = self.config.detector.sample(images, optics, generator)
            yield ParticleBatch(images, optics, index)

    def signal(self, index: Tensor) -> Tensor:
        """Return images without noise, all of the contrast 1.

        Parameters
        ----------
        index : Tensor of int64, shape (n,)
            Rows of the set.

        Returns
        -------
        Tensor, shape (n, box, box)
            In 1/angstrom.
        """
        latents, optics = self.latents[index], self.optics[index]
        if self.config.scattering == "weak-phase":
            return self.model.mean(latents, optics)
        atoms = self.shown.first.structure
        if not isinstance(atoms, GaussianAtoms):
            moved = atoms.at(latents.conformation)
            assert isinstance(moved, GaussianAtoms)
            atoms = moved
        return multislice_images(atoms, latents.pose, optics, self.config.box)

    def density(self) -> Tensor:
        """Return the true map, at rest, in the pixel size of the first optics group."""
        return self.densities()[0]

    def densities(self) -> list[Tensor]:
        """Return the true maps of all molecules and assemblies, the first at first."""
        box, pixel_size_angstrom = self.config.box, self.config.pixel_size_angstrom
        return [one.to_map(box, pixel_size_angstrom) for one in self.shown.molecules]

    def at_rest(self) -> AtomicModel:
        """Return the structure at rest, where viewers show it inside its map."""
        box, pixel_size_angstrom = self.config.box, self.config.pixel_size_angstrom
        first = self.shown.first
        centred = first.at_rest.coordinates_angstrom.double().numpy()
        return in_box(first.model, centred, box, pixel_size_angstrom)

    def _power(self) -> ImagePower:
        """Return the variances of images of the first particles; junk is none."""
        first = torch.nonzero(self.drawn.is_particle()).squeeze(1)[:_IMAGES_FOR_SIGNAL]
        if not len(first):
            raise InputError(
                "no image shows a particle: ask for less junk or more images"
            )
        parts = first.split(_BATCH)
        signals = ((self.signal(index), self.optics[index]) for index in parts)
        return measure_power(signals, self.config.detector)


def simulate(
    config: SimulationConfig, out_dir: Path | str, monitor: Monitor = SILENT
) -> Path:
    """Simulate a set of particles and write it.

    Written are ``particles.star`` and ``particles.mrcs``, which hold nothing of the
    truth but the CTF, and ``truth.star`` (with poses and shifts), ``truth.mrc`` and
    ``truth.cif``: the structure at rest, as a map and where it lies in that map. Maps
    of further molecules and assemblies are ``truth_class_2.mrc`` and so on;
    ``simulation.json`` says how images formed, and their signal to noise.
    Images are streamed: memory does not grow with their number beyond their poses.

    Parameters
    ----------
    config : SimulationConfig
    out_dir : path
        Made if it is absent.
    monitor : Monitor, optional
        Sees one stage ``simulate`` of n steps.

    Returns
    -------
    Path
        Of ``particles.star``.

    Raises
    ------
    InputError
        If the structure cannot be used.
    OutputError, ResourceError
        If the folder already holds particles or cannot be written, or the set fits
        neither on the disk nor into the memory.
    """
    out = Path(out_dir)
    star, stack = out / "particles.star", out / "particles.mrcs"
    for path in (star, stack):
        if path.exists():
            raise OutputError(f"{path} exists already: give another output folder.")
    require_room(config.n, config.box, out)
    simulation = Simulation.of(config)
    if config.detector is not None:
        decibels = 10 * math.log10(simulation.signal_to_noise)
        monitor.message(f"Signal to noise of the counts: {decibels:.1f} dB")
    if config.trajectory is not None:
        shown = simulation.shown.first.path
        assert shown is not None
        frames = f"{len(shown.frames):,} frames"
        monitor.message(f"Particles show the {frames} of {config.trajectory}")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make {out}: {error.strerror}") from error
    monitor.stage("simulate", config.n)
    pixel_size_angstrom = config.pixel_size_angstrom
    with StackWriter(stack, config.n, config.box, pixel_size_angstrom) as writer:
        for batch in simulation.batches():
            writer.write(batch.images)
            monitor.advance(len(batch))
    for number, density in enumerate(simulation.densities(), 1):
        name = "truth.mrc" if number == 1 else TRUE_MAP.format(number)
        write_map(out / name, density, pixel_size_angstrom)
    write_ensemble(out / "truth.cif", "truth", [simulation.at_rest()])
    told = formation_json(
        config.scattering, config.detector, simulation.signal_to_noise
    )
    (out / FORMATION).write_text(told, encoding="utf-8")
    has_ctf = config.defocus_range_angstrom is not None
    table = particle_table(simulation.optics, config.box, has_ctf, stack.name)
    truth = replace(
        table,
        pose=simulation.latents.pose,
        class_number=simulation.drawn.class_number,
        results=_true_columns(simulation),
    )
    table_to_relion(truth).write(out / "truth.star")
    off = with_defocus_error(table.optics, config.defocus_error_angstrom, config.seed)
    given = replace(table, optics=off)
    table_to_relion(given).write(star)
    return star


def _shown(config: SimulationConfig) -> SimulatedSet:
    """Return what there is to be shown, which must fit into the box."""
    name, b_factor = config.structure, config.b_factor_angstrom2
    source = config.path_source()
    first = SimulatedStructure.of(name, b_factor, config.motions, source)
    shown = SimulatedSet.of(first, name, b_factor, config.composition)
    reach = shown.reach_angstrom + 2**0.5 * config.max_shift_angstrom
    side = config.box * config.pixel_size_angstrom
    if reach > side / 2:
        raise InputError(
            f"The structure, shifts and motions reach {reach:.1f} A from the centre, "
            f"a box of {config.box} pixels of {config.pixel_size_angstrom:g} A only "
            f"{side / 2:.1f} A: use a larger box or pixel."
        )
    return shown


def _true_columns(simulation: Simulation) -> dict[str, NDArray[np.generic]]:
    """Return what is true of images, beside poses, in columns of a particle file."""
    columns = simulation.shown.columns(simulation.drawn)
    if simulation.config.contrast_sd > 0:
        columns[CONTRAST] = simulation.contrast.numpy()
    return columns
