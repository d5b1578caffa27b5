"""What the benchmarks about conformations simulate."""

from cryoinfer.data.simulate import SimulationConfig


def noisy_images(
    structure: str, n: int, seed: int, snr_db: float = -10.0, box: int = 64
) -> SimulationConfig:
    """Return a set of the benchmarks about conformations: a CTF, shifts to 4 A."""
    return SimulationConfig(
        structure,
        n=n,
        box=box,
        pixel_size_angstrom=1.9 * 64 / box,
        snr_db=snr_db,
        defocus_range_angstrom=(5000.0, 15000.0),
        max_shift_angstrom=4.0,
        seed=seed,
    )
