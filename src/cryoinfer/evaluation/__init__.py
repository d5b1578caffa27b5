"""Do estimates deserve trust? Maps, poses and stated uncertainties, judged.

Knows only records, tensors and posteriors, so that it can judge any program's output.
"""

from cryoinfer.evaluation.calibration import (
    coverage_curve,
    expected_calibration_error,
    mahalanobis_levels,
    posterior_ranks,
    rank_levels,
    rank_uniformity_p_value,
    rotation_ranks,
    tarp_levels,
)
from cryoinfer.evaluation.free_energy import FreeEnergy, FreeEnergyPlane
from cryoinfer.evaluation.fsc import (
    FscCurve,
    fourier_shell_correlation,
    masked_fsc,
    resolution_at,
)
from cryoinfer.evaluation.identifiability import (
    Identifiability,
    amplitude_identifiability,
)
from cryoinfer.evaluation.pose_error import (
    GlobalAlignment,
    PoseErrors,
    align_poses,
    pose_errors,
    tangent_error,
    truth_in_estimated_frame,
)
from cryoinfer.evaluation.volume_alignment import (
    align_map,
    refine_alignment,
    transform_map,
)

__all__ = [
    "FreeEnergy",
    "FreeEnergyPlane",
    "FscCurve",
    "GlobalAlignment",
    "Identifiability",
    "PoseErrors",
    "align_map",
    "align_poses",
    "amplitude_identifiability",
    "coverage_curve",
    "expected_calibration_error",
    "fourier_shell_correlation",
    "mahalanobis_levels",
    "masked_fsc",
    "pose_errors",
    "posterior_ranks",
    "rank_levels",
    "rank_uniformity_p_value",
    "refine_alignment",
    "resolution_at",
    "rotation_ranks",
    "tangent_error",
    "tarp_levels",
    "transform_map",
    "truth_in_estimated_frame",
]
