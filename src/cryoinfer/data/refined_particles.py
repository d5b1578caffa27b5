"""Particles with the optics that a refinement has found."""

from dataclasses import replace

from cryoinfer.data.particles import Particles
from cryoinfer.io.conventions.relion import RelionParticles, table_to_relion
from cryoinfer.io.conventions.table import Changes
from cryoinfer.records import Optics


def with_optics(particles: Particles, optics: Optics) -> Particles:
    """Return the particles with aberrations, magnification and defoci refined.

    They become RELION's, whose columns hold all of it. Of other metadata is kept what
    :meth:`cryoinfer.data.particles.Particles.save` carries to another format.

    Parameters
    ----------
    particles : Particles
    optics : Optics
        Of n particles, of the pixel sizes and the groups of ``particles.table``.
    """
    table = replace(particles.table, optics=optics)
    source, ctf = particles.source, particles.has_ctf
    if not isinstance(source, RelionParticles):
        return replace(particles, source=table_to_relion(table), table=table)
    changes = Changes(
        pose=table.pose,
        defocus_u_angstrom=optics.defocus_u_angstrom if ctf else None,
        defocus_v_angstrom=optics.defocus_v_angstrom if ctf else None,
        random_subset=None,
        pixel_size_angstrom=optics.pixel_size_angstrom,
        results={},
    )
    # Of distorted images the file has the shifts as these show them.
    source = source.with_optics(optics).with_changes(changes)
    return replace(particles, source=source, table=table)
