"""The compiled loops checked on the user's machine."""

from rich.console import Console

from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.workflows.machine import Machine
from cryoinfer.workflows.selfcheck import self_check

DONE, DIFFERS = 0, 1


def check_machine(console: Console) -> int:
    """Print how far every compiled operation is from its plain version.

    Returns
    -------
    int
        0 if all agree to single precision, 1 if one does not.
    """
    machine = Machine.here()
    rows = {
        "Processor": machine.processor,
        "PyTorch": f"{machine.torch_instructions}, {machine.threads} threads",
        "Compiled loops": machine.numba_processor,
    }
    if machine.limits:
        rows["Held to"] = ", ".join(f"{k}={v}" for k, v in machine.limits.items())
    say_rows(console, rows)
    checks = self_check()
    say(console, "Largest difference from the same in double precision, and limit:")
    width = max(len(check.name) for check in checks)
    for check in checks:
        verdict = "ok" if check.is_good else "DIFFERS"
        say(
            console,
            f"  {check.name:<{width}}  {check.error:8.1e}  {check.limit:8.1e}  "
            f"{verdict}",
        )
    wrong = [check.name for check in checks if not check.is_good]
    if not wrong:
        say(console, "All agree: results on this machine can be trusted.")
        return DONE
    say(
        console,
        f"{', '.join(wrong)}: differ from their plain versions. Do not trust results "
        "of this machine. Remove compiled kernels (*.nbi and *.nbc in the program's "
        "__pycache__ folders), install the versions of constraints.txt, and run it "
        "again; if it still differs, please report it with the lines above.",
    )
    return DIFFERS
