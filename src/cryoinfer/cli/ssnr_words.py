"""The spectral signal-to-noise ratio of a map, in a few words."""

from cryoinfer.evaluation.ssnr import SpectralSignalToNoise

_PARTS = 4
"""Of the frequencies up to the resolution, at the ends of which the ratio is told."""


def ssnr_words(
    ssnr: SpectralSignalToNoise, resolution_angstrom: float, length_angstrom: float
) -> str:
    """Return the ratio and its standard error at a few frequencies.

    Parameters
    ----------
    ssnr : SpectralSignalToNoise
        By shell.
    resolution_angstrom : float
        Of the last frequency that is told.
    length_angstrom : float
        Of the box.
    """
    last = length_angstrom / resolution_angstrom
    shells = [round(last * part / _PARTS) for part in range(1, _PARTS + 1)]
    return ", ".join(
        f"{float(ssnr.ratio[shell]):.3g} +- {float(ssnr.standard_error[shell]):.2g} "
        f"at {length_angstrom / shell:.1f} A"
        for shell in sorted({*shells} - {0})
    )
