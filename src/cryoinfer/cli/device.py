"""Which device a run computes on, and what is said of it."""

import torch

from cryoinfer.cli.options import DeviceName
from cryoinfer.cli.processes import place_on_this_machine
from cryoinfer.errors import ResourceError
from cryoinfer.operations import without_kernel


def chosen_device(wanted: DeviceName) -> torch.device:
    """Return the device of this process: the CPU, unless a GPU is asked for.

    ``auto`` is the CPU too until runs on a GPU have been measured. Processes on one
    machine take its GPUs in turn.

    Raises
    ------
    ResourceError
        If a GPU is asked for where PyTorch finds none.
    """
    if wanted != "cuda":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        build, found = torch.version.cuda, f"PyTorch {torch.__version__}"
        raise ResourceError(
            "expected a GPU for --device cuda, found none that PyTorch can use: "
            + (
                f"{found} is built without CUDA. Leave the option out, which computes "
                "on the CPU, or install a build with CUDA (https://pytorch.org)."
                if build is None
                else f"{found} is built for CUDA {build}. Leave the option out, which "
                "computes on the CPU, or see whether `nvidia-smi` lists a GPU and "
                "CUDA_VISIBLE_DEVICES hides none."
            )
        )
    return torch.device("cuda", place_on_this_machine() % torch.cuda.device_count())


def device_words(device: torch.device) -> list[str]:
    """Say what is to be known of a run on a device; nothing on the CPU."""
    if device.type == "cpu":
        return []
    plain = ", ".join(without_kernel(device.type))
    return [
        f"Images are searched and inserted on {torch.cuda.get_device_name(device)} "
        f"({device}). These operations have no CUDA kernel and run as plain "
        f"PyTorch: {plain}. Two runs differ in their last digits, and estimated times "
        "are the CPU's; --device cpu computes there."
    ]
