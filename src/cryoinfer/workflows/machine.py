"""What the machine computes with, which a measurement names beside its figures."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import llvmlite.binding
import numba
import torch

_LIMITS = (
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "NUMBA_CPU_NAME",
)
"""Settings of the environment that hold libraries to fewer instructions."""


@dataclass(frozen=True)
class Machine:
    """The processor, and for which one the libraries compute.

    Attributes
    ----------
    processor : str
    torch_instructions : str
        Of PyTorch's own loops, such as AVX2.
    numba_processor : str
        That the compiled loops are made for.
    threads : int
        Of PyTorch.
    limits : dict of str to str
        Settings of the environment that hold libraries to fewer instructions.
    """

    processor: str
    torch_instructions: str
    numba_processor: str
    threads: int
    limits: dict[str, str]

    @classmethod
    def here(cls) -> "Machine":
        """Describe this one."""
        name: str = numba.config.CPU_NAME  # type: ignore[attr-defined]  # set late
        return cls(
            _processor(),
            torch.backends.cpu.get_cpu_capability(),
            name or llvmlite.binding.get_host_cpu_name(),
            torch.get_num_threads(),
            {one: os.environ[one] for one in _LIMITS if one in os.environ},
        )


def _processor() -> str:
    """Return the model's name: the platform module knows no more than x86_64."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()
