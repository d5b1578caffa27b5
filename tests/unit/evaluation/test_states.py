"""Classes, poses and numbers of particles against true states."""

import math

import pytest
import roma
import torch

from cryoinfer.errors import InputError
from cryoinfer.evaluation.clusters import cluster_labels
from cryoinfer.evaluation.pose_error import align_poses, pose_errors
from cryoinfer.evaluation.states import (
    class_agreement,
    density_distance,
    state_pose_errors,
)
from cryoinfer.geometry.hand import flip_hand
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.records import Pose

ALONE = torch.eye(3, dtype=torch.float64)[None]


def test_the_names_of_classes_do_not_matter() -> None:
    true = torch.tensor([1, 1, 2, 2, 3, 3])
    found = class_agreement(torch.tensor([9, 9, 4, 4, 7, 7]), true)
    assert (found.accuracy, found.adjusted_rand_index) == (1.0, 1.0)
    assert found.total_variation == 0.0


def test_agreement_by_hand() -> None:
    """A table of Hubert and Arabie's kind: rows 3 1, 0 2."""
    true = torch.tensor([0, 0, 0, 0, 1, 1])
    found = class_agreement(torch.tensor([5, 5, 5, 8, 8, 8]), true)
    assert found.accuracy == pytest.approx(5 / 6)
    # Pairs together in both 3 + 1 = 4, in states 6 + 1 = 7, in classes 3 + 3 = 6, of
    # 15: chance 2.8, (4 - 2.8) / (6.5 - 2.8).
    assert found.adjusted_rand_index == pytest.approx(1.2 / 3.7)
    assert found.true_shares.tolist() == pytest.approx([4 / 6, 2 / 6])
    assert found.found_shares.tolist() == pytest.approx([3 / 6, 3 / 6])
    assert found.total_variation == pytest.approx(1 / 6)


def test_one_class_for_all_is_right_about_the_largest_state_alone() -> None:
    true = torch.arange(100) % 4
    found = class_agreement(torch.zeros(100), true)
    assert found.accuracy == pytest.approx(0.25)
    assert found.adjusted_rand_index == 0.0
    assert sorted(found.found_shares.tolist()) == [0.0, 0.0, 0.0, 1.0]
    assert found.total_variation == pytest.approx(0.75)


def test_a_class_without_a_partner_is_wrong() -> None:
    true = torch.zeros(10)
    found = class_agreement((torch.arange(10) < 3).long(), true)
    assert found.accuracy == pytest.approx(0.7)
    assert found.total_variation == pytest.approx(0.3)


def test_classes_of_other_particles_are_refused() -> None:
    with pytest.raises(InputError, match="classes of 4 particles, found 3"):
        class_agreement(torch.zeros(3), torch.zeros(4))


def test_clusters_apart_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(800) % 8
    corner = torch.stack([true // 4, true // 2 % 2, true % 2], 1).double()
    # 10 sd from corner to corner.
    z = corner + 0.1 * torch.randn(800, 3, generator=generator).double()
    assert class_agreement(cluster_labels(z, 8), true).accuracy == 1.0
    # Fewer points than clusters are no error, and no warning.
    assert len(cluster_labels(torch.zeros(5, 1), 3)) == 5


def test_distances_of_densities() -> None:
    first, second = torch.tensor([1.0, 1.0, 0.0]), torch.tensor([0.0, 20.0, 20.0])
    found = density_distance(first, second)
    assert (found.l1, found.total_variation) == (1.0, 0.5)
    apart = density_distance(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    assert (apart.l1, apart.total_variation) == (2.0, 1.0)
    with pytest.raises(InputError, match="one grid"):
        density_distance(first, first[:2])
    with pytest.raises(InputError, match="not 0"):
        density_distance(first, torch.zeros(3))


def test_every_state_has_a_frame_of_its_own() -> None:
    """Two states whose maps are 30 degrees and 8 A apart, poses off by 2 degrees."""
    generator = torch.Generator().manual_seed(0)
    n = 400
    state = (torch.arange(n) % 2).double()
    true = Pose(
        random_rotations(n, generator).double(),
        torch.randn(n, 2, generator=generator).double(),
    )
    frame = roma.rotvec_to_rotmat(torch.tensor([0.0, 0.0, math.radians(30)])).double()
    origin = torch.tensor([8.0, 0.0, 0.0]).double()
    vector = math.radians(2) * torch.randn(n, 3, generator=generator).double()
    second = state == 1
    rotation = torch.where(second[:, None, None], true.rotation @ frame, true.rotation)
    moved = torch.where(second[:, None], (true.rotation @ origin)[:, :2], 0.0)
    estimated = Pose(
        roma.rotvec_to_rotmat(vector) @ rotation, true.shift_angstrom + moved
    )
    both = state_pose_errors(estimated, true, state, ALONE)
    assert list(both) == [0.0, 1.0]
    for one in both.values():
        # The median of a chi distribution of three degrees of freedom is 1.54 sd, that
        # of two 1.18; of 200 draws they are known to 5 %.
        assert float(one.geodesic_degrees.median()) == pytest.approx(3.08, rel=0.15)
        assert float(one.view_degrees.median()) == pytest.approx(2.36, rel=0.15)
        # Shifts are exact but for the frame, whose origin takes up errors of rotation.
        assert float(one.shift_angstrom.median()) < 0.2
    single = Pose(estimated.rotation, estimated.shift_angstrom)
    alignment = align_poses(single, true, generator)
    together = pose_errors(single, true, alignment)
    assert float(together.geodesic_degrees.mean()) > 12


def test_states_may_have_hands_of_their_own_and_few_particles_no_frame() -> None:
    generator = torch.Generator().manual_seed(0)
    true = Pose(random_rotations(70, generator).double(), torch.zeros(70, 2).double())
    mirrored = flip_hand(true)
    state = torch.where(torch.arange(70) < 30, 1.0, 2.0)
    state[65:] = 7.0
    rotation = torch.where(
        (state == 1)[:, None, None], true.rotation, mirrored.rotation
    )
    found = state_pose_errors(Pose(rotation, true.shift_angstrom), true, state, ALONE)
    assert list(found) == [1.0, 2.0]
    assert not found[1.0].alignment.mirrored
    assert found[2.0].alignment.mirrored
    # Exact, but for the rounding of angles near 0.
    assert max(float(one.geodesic_degrees.max()) for one in found.values()) < 1e-4
