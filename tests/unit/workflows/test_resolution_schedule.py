"""The parts of the march, and its checkpoint."""

from dataclasses import replace

import torch

from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.records import Latents, Pose
from cryoinfer.results.refined_optics import RefinedOptics
from cryoinfer.results.run_result import Iteration
from cryoinfer.workflows.acceleration import AndersonStep
from cryoinfer.workflows.particle_quality import ParticleQuality
from cryoinfer.workflows.resolution_schedule import (
    agreement_radius,
)
from cryoinfer.workflows.schedule_state import (
    ScheduleState,
    state_from_dict,
    state_to_dict,
)


def test_agreement_ends_before_the_first_fall() -> None:
    fsc = torch.tensor([1.0, 0.99, 0.5, 0.1, 0.9])
    assert agreement_radius(fsc) == 2
    # The origin does not count: maps have no mean.
    assert agreement_radius(torch.tensor([0.0, 0.9, 0.0])) == 1
    assert agreement_radius(torch.tensor([1.0, 0.0])) == 0
    assert agreement_radius(torch.tensor([1.0, 0.9, 0.8])) == 2


def known_optics() -> RefinedOptics:
    zero = torch.zeros(1, 2).double()
    return RefinedOptics(
        beam_tilt_mrad=zero,
        beam_tilt_sd_mrad=zero,
        magnification=torch.eye(2)[None],
        stretch_sd=zero,
        trefoil_radian=zero,
        trefoil_sd_radian=zero,
        even_radian=zero,
        even_sd_radian=zero,
        micrographs=("a.mrc",),
        astigmatism_angstrom=zero,
        astigmatism_sd_angstrom=zero,
    )


def state() -> ScheduleState:
    generator = torch.Generator().manual_seed(0)
    rotation = torch.randn(3, 3, 3, generator=generator).double()
    latents = Latents.rigid(Pose(rotation, torch.ones(3, 2)), torch.arange(3.0))
    maps = tuple(torch.randn(4, 4, 4, generator=generator) for _ in range(2))
    return ScheduleState(
        posterior=replace(
            ParticlePosterior.at(latents, 2),
            log_likelihood=-torch.arange(3.0).double(),
        ),
        noise=(torch.arange(4.0), torch.ones(3)),
        maps=(maps[0], maps[1]),
        map_radius=9,
        radius=7,
        start_radius=5,
        shared_radius=5,
        done=2,
        searching=False,
        settled=True,
        quality=ParticleQuality.unknown(3),
        stayed=1,
        iterations=(Iteration("global", 1.5, 5.0, 12.0, -3.0, 0.5),),
        optics=known_optics(),
        optics_rested=True,
        rounds=(AndersonStep.of(7, (maps[1], maps[0]), (maps[0], maps[1])),),
    )


def same(first: object, second: object) -> bool:
    """Compare nested records, sequences and tensors."""
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first, second)
    if isinstance(first, tuple | list):
        pairs = zip(first, second, strict=True)
        return type(first) is type(second) and all(same(a, b) for a, b in pairs)
    if hasattr(first, "__dict__"):
        pairs = zip(vars(first).values(), vars(second).values(), strict=True)
        return type(first) is type(second) and all(same(a, b) for a, b in pairs)
    return first == second and type(first) is type(second)


def test_a_checkpoint_holds_the_whole_state() -> None:
    before = state()
    assert same(state_from_dict(state_to_dict(before)), before)


def plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(plain(v) for v in value)
    return isinstance(value, torch.Tensor | int | float | str | bool)


def test_a_checkpoint_survives_a_file_without_code(tmp_path) -> None:
    saved = state_to_dict(state())
    assert plain(saved)
    torch.save(saved, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    assert same(state_from_dict(loaded), state())
