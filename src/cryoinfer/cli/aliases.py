"""Options by the names that other programs, or earlier versions, have for them.

They are understood and stand in no help: each option has one name of its own. Only what
means exactly the same is here.
"""

from typing import Any

RELION, CRYODRGN, EARLIER = "RELION", "cryoDRGN", "an earlier version"

ALIASES: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
    "--o": (RELION, (("--out",),)),
    "--sym": (RELION, (("--symmetry",),)),
    "--j": (RELION, (("--threads",),)),
    "--angpix": (RELION, (("--pixel-size",),)),
    "--particle_diameter": (RELION, (("--particle-diameter",),)),
    "--ref": (RELION, (("--map",),)),
    "--random_seed": (RELION, (("--seed",),)),
    "--kV": (RELION, (("--voltage",),)),
    "--Cs": (RELION, (("--cs",),)),
    "--Q0": (RELION, (("--amplitude-contrast",),)),
    "--adhoc_bfac": (RELION, (("--bfactor",),)),
    "--ini_threshold": (RELION, (("--threshold",),)),
    "--outdir": (CRYODRGN, (("--out",),)),
    "--Apix": (CRYODRGN, (("--pixel-size",),)),
    "--shift": (EARLIER, (("--shift-sd",), ("--max-shift",))),
    "--refine-defocus": (EARLIER, (("--defocus-error", "300"),)),
}
"""Whose name it is, and what is read in its place: the first that the command has."""

INPUT = "--i"
"""RELION's name of what our commands take without one, where they take one thing."""


def in_own_words(command: Any, words: list[str]) -> list[str]:
    """Return the words of a command line with the command's own names of options.

    Parameters
    ----------
    command : click.Command
    words : list of str
    """
    end = words.index("--") if "--" in words else len(words)
    own = {name for parameter in command.params for name in parameter.opts}
    own |= {name for parameter in command.params for name in parameter.secondary_opts}
    inputs = [one for one in command.params if one.param_type_name == "argument"]
    found: list[str] = []
    for word in words[:end]:
        name, sign, value = word.partition("=")
        if name == INPUT and len(inputs) == 1:
            found += [value] if sign else []
        elif name in ALIASES and name not in own:
            meant = [new for new in ALIASES[name][1] if new[0] in own]
            first, *more = meant[0] if meant else (name,)
            found += [f"{first}{sign}{value}", *more]
        else:
            found.append(word)
    return found + words[end:]
