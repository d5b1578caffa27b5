"""Settings of named simulations."""

from dataclasses import replace

from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.data.structure_names import PRESET_NAMES
from cryoinfer.errors import InputError

# The sets A to G of cryoPoseNet (Nashed et al. 2021), to compare with its numbers.
_CRYOPOSENET = SimulationConfig(n=9000, snr_db=None)
_PRESETS = {
    "cryoposenet-a": _CRYOPOSENET,
    "cryoposenet-b": replace(_CRYOPOSENET, snr_db=10.0),
    "cryoposenet-c": replace(_CRYOPOSENET, snr_db=5.0),
    "cryoposenet-d": replace(_CRYOPOSENET, snr_db=0.0),
    "cryoposenet-e": replace(_CRYOPOSENET, snr_db=-5.0),
    "cryoposenet-f": replace(_CRYOPOSENET, snr_db=-10.0),
    "cryoposenet-g": replace(
        _CRYOPOSENET, snr_db=0.0, defocus_range_angstrom=(4000.0, 12000.0)
    ),
}


def simulation_preset(name: str) -> SimulationConfig:
    """Return the settings of a named set.

    Parameters
    ----------
    name : str
        ``cryoposenet-a`` to ``-g``: 9,000 images of open adenylate kinase, 128
        pixels of 0.8 angstrom. A has no noise; B to F 10, 5, 0, -5, -10 dB; G 0 dB
        and a CTF of 0.4 to 1.2 micrometres (300 kV, Cs 2.7 mm, contrast 0.1).

    Raises
    ------
    InputError
        If no preset has that name.
    """
    if name not in _PRESETS:
        raise InputError(
            f"There is no preset {name!r}: expected one of {', '.join(PRESET_NAMES)}."
        )
    return _PRESETS[name]
