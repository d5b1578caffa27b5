"""What of the optics cannot be refined is said before a run begins."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cryoinfer.cli.optics_options import require_refinable
from cryoinfer.cli.options import RunOptions
from cryoinfer.errors import InputError
from cryoinfer.records import Optics

OPTIONS = RunOptions(workflow="refine", particles=Path("a.star"), out=Path("b"))


def particles(*, has_ctf: bool = True, multiplied: bool = False) -> SimpleNamespace:
    optics = Optics.without_ctf(2, 1.0)
    flags = torch.tensor([False, multiplied])
    return SimpleNamespace(
        has_ctf=has_ctf, optics=replace(optics, ctf_premultiplied=flags)
    )


@pytest.mark.parametrize(
    ("changes", "option"),
    [
        ({"refine_astigmatism": True}, "--refine-astigmatism"),
        ({"refine_magnification": True}, "--refine-magnification"),
        (
            {"refine_beam_tilt": True, "refine_aberrations": True},
            "--refine-aberrations",
        ),
        ({"defocus_error": 100.0}, "--defocus-error"),
    ],
)
def test_the_ctf_of_images_that_it_multiplied_stays(changes, option) -> None:
    options = replace(OPTIONS, **changes)
    require_refinable(options, particles())
    with pytest.raises(InputError, match=f"Leave {option} out"):
        require_refinable(options, particles(multiplied=True))


def test_a_beam_tilt_can_be_refined_of_any_images_with_a_ctf() -> None:
    options = replace(OPTIONS, refine_beam_tilt=True)
    require_refinable(options, particles(multiplied=True))
    with pytest.raises(InputError, match="needs a CTF"):
        require_refinable(options, particles(has_ctf=False))


def test_optics_are_refined_with_a_search() -> None:
    options = replace(OPTIONS, refine_aberrations=True, method="amortized")
    with pytest.raises(InputError, match="--refine-aberrations goes with --method"):
        require_refinable(options, particles())
