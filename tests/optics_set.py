"""A few simulated particles, of which terms of the optics are found."""

from cryoinfer.data.simulate import Simulation, SimulationConfig

BOX, PIXEL = 32, 3.0


def optics_set(n: int, snr_db: float) -> Simulation:
    """Return n particles of :data:`BOX` pixels, of a CTF and with shifts."""
    config = SimulationConfig(
        n=n,
        box=BOX,
        pixel_size_angstrom=PIXEL,
        snr_db=snr_db,
        defocus_range_angstrom=(6000.0, 12000.0),
        max_shift_angstrom=4.0,
    )
    return Simulation.of(config)
