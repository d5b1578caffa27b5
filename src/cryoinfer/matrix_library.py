"""The library of matrix products, told to round alike on any number of threads.

On Intel processors MKL divides the inner dimension of small products between threads,
and the last bits of a sum then depend on how many there are. Its strict conditional
numerical reproducibility does not (oneMKL Developer Guide, "Obtaining Numerically
Reproducible Results"). It reads the setting when it computes its first product, so
this module is imported before PyTorch. Elsewhere MKL is left as it is: its guide
promises the strict mode for Intel processors only.
"""

import os
import platform
from pathlib import Path

_SETTING = "MKL_CBWR"


def is_intel() -> bool:
    """Return whether Intel made the processor."""
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "GenuineIntel" in platform.processor()


def ask_for_reproducible_products() -> None:
    """Set MKL's strict mode in the environment, unless the user has chosen a mode."""
    if is_intel():
        os.environ.setdefault(_SETTING, "AUTO,STRICT")
