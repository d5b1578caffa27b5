"""What stays the same through all passes over the particles."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.geometry.symmetry import is_polyhedral, symmetry_rotations
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import ReferenceGrid, require_finite
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.physics.noise import radial_power
from cryoinfer.physics.premultiplied import noise_weight, require_ctf_kept
from cryoinfer.records import Optics, ParticleBatch
from cryoinfer.results.refined_optics import RefinedOptics
from cryoinfer.workflows.acquisition import is_usual
from cryoinfer.world import ALONE, World

CPU = torch.device("cpu")

CHUNK = 500
"""Images in memory at a time: 32 MB of pixels at a box of 128."""

_NOISE_IMAGES = 600
"""Images a group that its noise spectrum is measured on."""

_DIAMETER_OF_BOX = 0.75
"""Particle diameter over the box where nobody tells: boxes are 1.3 to 2 diameters."""


_SHIFT_OF_BOX = 0.07
"""Largest shift over the box where nobody tells: 9 pixels in 128, twice the usual
spread of picked and centred particles. Gauss-Newton may go beyond it."""


_START_CELLS = 6.0
"""Fourier pixels of the start's radius per particle diameter: enough to break the
symmetry of a blob, few enough for a grid of 15 degrees."""

_POLYHEDRAL_START_CELLS = 11.0
"""The same where the point group is that of a polyhedron: to a lower radius a shell of
24 or 60 units looks alike from all sides (benchmarks/README.md, section 35)."""


@dataclass(frozen=True)
class OpticsTerms:
    """What of the optics of each group is refined.

    Attributes
    ----------
    beam_tilt : bool
    magnification : bool
        What of it differs with direction.
    astigmatism : bool
        Of each micrograph.
    aberrations : bool
        Beam tilt, trefoil, and even aberrations to the fourth order.
    """

    beam_tilt: bool = False
    magnification: bool = False
    astigmatism: bool = False
    aberrations: bool = False


NO_TERMS = OpticsTerms()


@dataclass(frozen=True)
class Problem:
    """Particles and what is believed about them.

    Attributes
    ----------
    particles : Particles
    grid : ReferenceGrid
        Of the map: the box and pixel size of the first optics group.
    symmetry : str
    symmetry_rotation : Tensor, shape (m, 3, 3)
    half : Tensor of int64, shape (n,)
        0 or 1.
    prior : PosePrior
    max_shift_angstrom : float
        Shifts that the exhaustive search covers.
    particle_radius_angstrom : float
        Outside of it references are zero.
    noise_rows : Tensor of bool, shape (n,)
        Particles that the noise is measured on.
    world : World
        The processes that share the particles.
    device : torch.device
        Where images are compared with structures, batch by batch. What is kept of
        particles, and maps and their sums between two passes, are on the CPU.
    mask : Tensor, shape (n, n, n), or None
        On the voxels of the grid, in [0, 1], in place of one that is found in maps.
    contrast : Tensor of float64, shape (n,), or None
        What images show of the structure, by which their CTFs are multiplied.
    optics_terms : OpticsTerms
        What of the optics is refined between iterations.
    refined_optics : Optics, of n particles, or None
        As images are seen, in place of what the file has.
    """

    particles: Particles
    grid: ReferenceGrid
    symmetry: str
    symmetry_rotation: Tensor
    half: Tensor
    prior: PosePrior
    max_shift_angstrom: float
    particle_radius_angstrom: float
    noise_rows: Tensor
    world: World = ALONE
    device: torch.device = CPU
    mask: Tensor | None = None
    contrast: Tensor | None = None
    optics_terms: OpticsTerms = NO_TERMS
    refined_optics: Optics | None = None

    @property
    def optics(self) -> Optics:
        """Of all particles, as images are seen."""
        own = self.particles.optics
        return own if self.refined_optics is None else self.refined_optics

    def shared_by(self, world: World) -> Self:
        """Return the problem of one of several processes."""
        return replace(self, world=world)

    def on(self, device: torch.device | str) -> Self:
        """Return the problem of a process that computes on a device."""
        return replace(self, device=torch.device(device))

    def refining(self, terms: OpticsTerms) -> Self:
        """Return the problem whose optics are refined too.

        Raises
        ------
        InputError
            If the CTF is that which images were multiplied by.
        """
        if terms.magnification or terms.astigmatism or terms.aberrations:
            require_ctf_kept(self.particles.optics, "its refinement")
        return replace(self, optics_terms=terms)

    def seen_through(self, optics: RefinedOptics | None) -> Self:
        """Return the problem with the optics that were found, if any were."""
        if optics is None:
            return self
        found = optics.applied(self.particles.table)
        read = self.particles.optics.pixel_size_angstrom  # of odd boxes, cropped ones
        return replace(self, refined_optics=replace(found, pixel_size_angstrom=read))

    def within(self, mask: Tensor | None) -> Self:
        """Return the problem with a mask of the user's.

        Raises
        ------
        InputError
            If it has other voxels than the grid, or leaves the range from 0 to 1.
        """
        if mask is None:
            return self
        box = self.grid.box
        if mask.shape != (box,) * 3:
            raise InputError(
                f"expected a mask of {box} voxels along every edge, as the particles "
                f"have pixels, found {tuple(mask.shape)}"
            )
        if not 0 <= float(mask.min()) <= float(mask.max()) <= 1 or not bool(mask.any()):
            raise InputError(
                f"expected a mask from 0 to 1, found {float(mask.min()):g} to "
                f"{float(mask.max()):g}"
            )
        return replace(self, mask=mask.float())

    def of_dims(self, dims: int) -> Self:
        """Return the problem with z of so many numbers, each of unit spread."""
        prior = replace(self.prior, conformation_sd_angstrom=(1.0,) * dims)
        return replace(self, prior=prior)

    def measured_without(self, flagged: Tensor) -> Self:
        """Return the problem whose noise is not measured on flagged particles, (n,)."""
        return replace(self, noise_rows=self.noise_rows & ~flagged)

    def of_contrast(self, contrast: Tensor) -> Self:
        """Return the problem whose images show so much of the structure, (n,)."""
        return replace(self, contrast=contrast)

    def of_rows(self, rows: Tensor) -> Self:
        """Return the problem of some of the particles."""
        return replace(
            self,
            particles=self.particles.select(rows),
            half=self.half[rows],
            noise_rows=self.noise_rows[rows],
            contrast=None if self.contrast is None else self.contrast[rows],
            refined_optics=(
                None if self.refined_optics is None else self.refined_optics[rows]
            ),
        )

    def own_chunks(self, index: Tensor, size: int) -> list[Tensor]:
        """Return those of some rows that are this process's, in chunks.

        Each of one optics group, half and box.
        """
        shares = [self.world.share(rows) for rows in self._parts(index)]
        return [
            rows
            for own in shares
            if len(own)
            for rows in self.particles.chunks(size, own)
        ]

    def batch(self, rows: Tensor) -> ParticleBatch:
        """Read some particles, and bring them to the device."""
        batch = self.particles.batch(rows)
        optics = self.optics[batch.index]
        if self.contrast is not None:
            scale = optics.scale * self.contrast[batch.index]
            optics = replace(optics, scale=scale)
        return replace(batch, optics=optics).to(self.device)

    def batches(self, index: Tensor) -> Iterator[ParticleBatch]:
        """Yield particles in batches of one optics group and one half each.

        On the device.
        """
        for part in self._parts(index):
            for rows in self.particles.chunks(CHUNK, part):
                yield self.batch(rows)

    def _parts(self, index: Tensor) -> list[Tensor]:
        """Divide rows into those of one optics group and one half each."""
        part = self.particles.optics.group[index] * 2 + self.half[index]
        return [index[part == number] for number in part.unique().tolist()]

    def map_box(self, radius: int) -> int:
        """Return the box of a map that holds frequencies up to ``radius``.

        A multiple of 4, which keeps the padded box even at a padding of 1.5.
        """
        return min(self.grid.box, 4 * math.ceil((2 * radius + 4) / 4))


def define_problem(
    particles: Particles,
    symmetry: str,
    particle_diameter_angstrom: float | None,
    max_shift_angstrom: float | None,
    defocus_sd_angstrom: float,
    generator: torch.Generator,
) -> Problem:
    """Choose what the user left open, and divide the particles into halves.

    Parameters
    ----------
    particles : Particles
    symmetry : str
    particle_diameter_angstrom : float, optional
        By default three quarters of the box.
    max_shift_angstrom : float, optional
        By default 7 % of the box.
    defocus_sd_angstrom : float
        Width of the prior of the defocus error; 0 takes the defoci as known.
    generator : torch.Generator
        In the same state in every process.

    Raises
    ------
    InputError
        If the diameter does not fit into the box, or the defocus of images that were
        multiplied by their CTF is in question.
    """
    if defocus_sd_angstrom > 0:
        require_ctf_kept(particles.optics, "the error of the defocus")
    n = len(particles)
    grid = ReferenceGrid(particles.box, particles.pixel_size_angstrom)
    diameter = particle_diameter_angstrom or _DIAMETER_OF_BOX * grid.length_angstrom
    if not 0 < diameter <= grid.length_angstrom:
        raise InputError(
            f"expected a particle diameter within the box of "
            f"{grid.length_angstrom:.0f} A, found {diameter:g} A"
        )
    reach = max_shift_angstrom
    if reach is None:
        reach = _SHIFT_OF_BOX * grid.length_angstrom
    subset = particles.random_subset
    if subset is None:
        half = torch.randperm(n, generator=generator) % 2
        if n == 1:  # or files of one particle each would all fill the first half
            half = torch.randint(2, (1,), generator=generator)
    else:
        half = subset - 1
    # The shifts' prior is wide: three times the reach at two standard deviations.
    prior = PosePrior(reach * 1.5, defocus_sd_angstrom)
    return Problem(
        particles,
        grid,
        symmetry.upper(),
        symmetry_rotations(symmetry),
        half,
        prior,
        reach,
        diameter / 2,
        _choose_noise_rows(particles.optics.group, generator),
    )


def start_radius(problem: Problem) -> int:
    """Return the Fourier radius of the first map."""
    share = 2 * problem.particle_radius_angstrom / problem.grid.length_angstrom
    polyhedral = is_polyhedral(problem.symmetry_rotation)
    cells = _POLYHEDRAL_START_CELLS if polyhedral else _START_CELLS
    return max(5, min(problem.grid.box // 4, round(cells / share)))


def initial_noise(problem: Problem) -> tuple[Tensor, ...]:
    """Return the mean power of the images of each group, signal included.

    Raises
    ------
    InputError
        If images hold values that are not finite, or no contrast at all.
    """
    spectra = []
    groups = problem.particles.optics.group
    for group in range(int(groups.max()) + 1):
        index = torch.nonzero((groups == group) & problem.noise_rows).squeeze(1)
        if len(index) == 0:
            spectra.append(torch.ones(2))
            continue
        powers, counted = [], 0
        for batch in problem.batches(index):
            require_finite(batch)
            batch = batch[is_usual(batch.images)]
            counted += len(batch)
            box = batch.images.shape[-1]
            disc = FourierDisc.of_box(box, box // 2 - 1, problem.device)
            coefficients = disc.gather(image_to_fourier(batch.images))
            weight = _noise_weight(batch.optics, disc)
            powers.append(radial_power(coefficients, disc, weight) * len(batch))
        spectrum = torch.stack(powers).sum(0).cpu() / counted
        if not bool((spectrum > 0).all()):
            raise InputError(
                f"the images of optics group {group + 1} are constant: expected "
                "particles with contrast; run `cryoinfer check` on them"
            )
        spectra.append(spectrum.float())
    return tuple(spectra)


def _noise_weight(optics: Optics, disc: FourierDisc) -> Tensor | None:
    """Return how much coefficients of images count, None where all count alike."""
    if not bool(optics.ctf_premultiplied.any()):
        return None
    frequencies = disc.frequencies(float(optics.pixel_size_angstrom[0]))
    return noise_weight(optics, evaluate_ctf(optics, *frequencies))


def _choose_noise_rows(group: Tensor, generator: torch.Generator) -> Tensor:
    chosen = torch.zeros(len(group), dtype=torch.bool)
    for number in group.unique().tolist():
        members = torch.nonzero(group == number).squeeze(1)
        order = torch.randperm(len(members), generator=generator)
        chosen[members[order[:_NOISE_IMAGES]]] = True
    return chosen
