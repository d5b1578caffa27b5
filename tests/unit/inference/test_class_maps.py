"""A mixture of maps: its responsibilities, against Bayes' rule written out."""

from dataclasses import replace

import torch
from scenes import RADIUS, Scene, blob_map, make_scene
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.class_maps import (
    ClassMaps,
    InEveryClass,
    ScoredPoses,
    class_of,
)
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import LocalRefinement
from cryoinfer.inference.prior import PosePrior
from cryoinfer.records import Latents

N, NOISE_SD = 6, 3.0
PRIOR = PosePrior(3.0, 0.0, (0.0,))
POPULATION = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)


def maps_of(scene: Scene) -> tuple[MapProjector, ...]:
    """Return the true map and two that differ from it a little."""
    whole = blob_map()
    found = [MapProjector(scene.volume)]
    for share in (0.01, 0.02):
        other = whole + share * whole.flip(0)
        found.append(MapProjector(FourierVolume.from_map(other, RADIUS, 1.5)))
    return tuple(found)


def naive_responsibilities(scene: Scene, maps: tuple[MapProjector, ...]) -> Tensor:
    """Return shares of maps at the true poses, image by image and map by map."""
    shift = scene.truth.pose.shift_angstrom
    prior = -(shift.square().sum(1)) / (2 * PRIOR.shift_sd_angstrom**2)
    rows = []
    for k, one in enumerate(maps):
        other = Scene(one.volume, scene.images, scene.truth)
        rows.append(-other.loss_of(scene.truth) + prior + POPULATION[k].log())
    log_joint = torch.stack(rows, 1)
    top = log_joint.max(1, keepdim=True).values
    joint = (log_joint - top).exp()
    return joint / joint.sum(1, keepdim=True)


def by_class(found: ParticlePosterior, classes: int) -> Tensor:
    """Return the weight of each class, (n, classes)."""
    number = class_of(found.modes)
    each = [(found.weight * (number == k)).sum(1) for k in range(classes)]
    return torch.stack(each, 1)


def start_of(scene: Scene) -> ParticlePosterior:
    known = scene.truth
    none = torch.zeros(N, 1, dtype=torch.float64)
    return ParticlePosterior.at(
        Latents(known.pose, known.defocus_offset_angstrom, none), 1
    )


def test_responsibilities_at_known_poses_are_bayes_rule() -> None:
    scene = make_scene(N, NOISE_SD)
    maps = maps_of(scene)
    inference = InEveryClass([ScoredPoses()] * len(maps))
    found = inference.infer(
        scene.images, ClassMaps(maps, POPULATION), PRIOR, start_of(scene)
    )
    expected = naive_responsibilities(scene, maps)
    # Neither sure nor all alike, or nothing would be tested.
    assert 0.02 < float(expected.min()) < 0.2
    # Likelihoods are sums of some hundred in single precision.
    torch.testing.assert_close(by_class(found, 3), expected, rtol=0, atol=2e-3)
    assert bool((found.weight[:, :-1] >= found.weight[:, 1:]).all())


def test_evidence_is_taken_from_the_judges() -> None:
    scene = make_scene(N, NOISE_SD)
    maps = maps_of(scene)
    turned = (maps[1], maps[2], maps[0])
    inference = InEveryClass([ScoredPoses()] * 3)
    judged = inference.infer(
        scene.images, ClassMaps(maps, POPULATION, turned), PRIOR, start_of(scene)
    )
    shown = inference.infer(
        scene.images, ClassMaps(turned, POPULATION), PRIOR, start_of(scene)
    )
    assert torch.equal(judged.weight, shown.weight)


def test_classes_keep_their_own_modes_through_refinement() -> None:
    scene = make_scene(N, NOISE_SD)
    maps = maps_of(scene)
    inference = InEveryClass([LocalRefinement(3, 0.1)] * 3)
    shown = ClassMaps(maps, POPULATION)
    once = inference.infer(scene.images, shown, PRIOR, start_of(scene))
    again = inference.infer(scene.images, shown, PRIOR, once)
    numbers = class_of(again.modes).sort(dim=1).values
    assert torch.equal(numbers, torch.arange(3).expand(N, 3))
    # Refinement has a top to come to: it may only rise, but for single precision.
    assert bool((again.log_likelihood >= once.log_likelihood - 0.1).all())
    rigid = replace(PRIOR, conformation_sd_angstrom=())
    alone = LocalRefinement(3, 0.1).infer(
        scene.images, maps[0], rigid, _rigid(start_of(scene))
    )
    own = class_of(once.modes) == 0
    torch.testing.assert_close(
        once.modes.pose.rotation[own], alone.mode().pose.rotation, rtol=0, atol=1e-6
    )


def _rigid(start: ParticlePosterior) -> ParticlePosterior:
    modes = start.modes.without_conformation()
    return replace(start, modes=modes, covariance=start.covariance[..., :6, :6])
