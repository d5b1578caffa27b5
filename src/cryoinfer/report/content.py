"""What a report shows, in plain values: filled from a fresh run or from its folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from cryoinfer.evaluation.against_truth import TruthComparison
from cryoinfer.evaluation.fsc import resolution_at
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.records import Pose
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.results.gallery import Gallery
from cryoinfer.results.run_result import Iteration
from cryoinfer.wording import agree_at_nyquist, agree_nowhere

_SHOWN_VIEWS = 5000


@dataclass(frozen=True)
class ReportContent:
    """All that the report of one run shows.

    Attributes
    ----------
    title, workflow, created : str
        Name of the run, what was done (such as ``ab initio``), and when.
    symmetry : str
        Point group.
    pixel_size_angstrom : float
    density : Tensor, shape (n, n, n)
        The final map.
    fsc, fsc_unmasked : Tensor, shape (n // 2 + 1,)
        Between half-maps; ``fsc`` is masked and corrected for the mask.
    pose : Pose of n particles
    variance : Tensor, shape (n, 6)
        Of the rotation vector in the image frame (radian squared), the shift and the
        defocus (angstrom squared); zero where nothing was inferred.
    stage_seconds : mapping from stage to seconds, in the order of the run
    independence : str
        How the half-maps were kept independent, in a sentence or two.
    iterations : sequence of Iteration
    fsc_masked, fsc_randomised : Tensor, shape (n // 2 + 1,), optional
    noise_spectrum : Tensor, shape (groups, rings), optional
        Power per Fourier coefficient.
    warnings : tuple of str
    arguments, versions : mapping
        How to repeat the run.
    truth : TruthComparison, optional
    trials : mapping of str to CalibrationTrial
        Of the posteriors of the encoder that posed the particles, if there is one.
    halves : {"apart", "given", "one map"}
        Whether the halves were posed against maps of their own, at given poses, or
        both against one map.
    nothing_found : str
        Why there is no structure; empty where one was found, or nobody asked.
    shared_resolution_angstrom : float, optional
        To where the halves agree by what both began with alone.
    handedness : str
        Where the hand of the map is from.
    remarks : tuple of str
        What was said of the particles when they were read.
    gallery : Gallery, optional
        Some of the particles.
    outlier_score_nats : Tensor, shape (m,), optional
        Of all images that could be read, where the run has tested them.
    """

    title: str
    workflow: str
    created: str
    symmetry: str
    pixel_size_angstrom: float
    density: Tensor
    fsc: Tensor
    fsc_unmasked: Tensor
    pose: Pose
    variance: Tensor
    stage_seconds: Mapping[str, float]
    independence: str
    iterations: Sequence[Iteration] = ()
    fsc_masked: Tensor | None = None
    fsc_randomised: Tensor | None = None
    noise_spectrum: Tensor | None = None
    warnings: tuple[str, ...] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    truth: TruthComparison | None = None
    trials: Mapping[str, CalibrationTrial] = field(default_factory=dict)
    halves: Literal["apart", "given", "one map"] = "apart"
    nothing_found: str = ""
    shared_resolution_angstrom: float | None = None
    handedness: str = ""
    remarks: tuple[str, ...] = ()
    gallery: Gallery | None = None
    outlier_score_nats: Tensor | None = None

    @property
    def box(self) -> int:
        """Return the size of the map in voxels."""
        return self.density.shape[-1]

    @property
    def nyquist_angstrom(self) -> float:
        """Return the finest resolution that the pixel size can carry."""
        return 2 * self.pixel_size_angstrom

    def resolution_angstrom(self) -> float:
        """Return where the corrected half-map FSC falls below 0.143."""
        return resolution_at(self.fsc, 0.143, self.box, self.pixel_size_angstrom)

    @property
    def agrees_nowhere(self) -> bool:
        """Whether the half-maps agree in no shell, so that there is no resolution."""
        return agree_nowhere(
            self.resolution_angstrom(), self.box, self.pixel_size_angstrom
        )

    @property
    def agrees_at_nyquist(self) -> bool:
        """Whether the half-maps agree up to the last shell."""
        return agree_at_nyquist(
            self.resolution_angstrom(), self.box, self.pixel_size_angstrom
        )

    @property
    def agrees_as_begun(self) -> bool:
        """Whether halves agree no farther than what both began with makes them."""
        shared = self.shared_resolution_angstrom
        return shared is not None and self.resolution_angstrom() >= shared

    @property
    def total_seconds(self) -> float:
        """Return the time of all stages."""
        return sum(self.stage_seconds.values())

    @property
    def rotation_sd_degrees(self) -> Tensor | None:
        """Return each particle's sd, root mean square over the axes, shape (n,)."""
        sd = self._root_mean_variance(slice(0, 3))
        return None if sd is None else torch.rad2deg(sd)

    @property
    def shift_sd_angstrom(self) -> Tensor | None:
        """Return each particle's sd, root mean square over x and y, shape (n,)."""
        return self._root_mean_variance(slice(3, 5))

    @property
    def defocus_sd_angstrom(self) -> Tensor | None:
        """Return each particle's sd, shape (n,); None where it was not inferred."""
        return self._root_mean_variance(slice(5, 6))

    @property
    def directions(self) -> Tensor:
        """Return the beam directions in the map's frame, symmetry mates included.

        Unit vectors (x, y, z), shape (views, 3). Of many particles every k-th is
        taken, so that the views are about 5,000: a figure shows no more.
        """
        group = symmetry_rotations(self.symmetry)
        stride = max(1, len(self.pose) * len(group) // _SHOWN_VIEWS)
        beam = self.pose.rotation[::stride, 2].double().cpu()
        return (beam @ group).flatten(0, 1)

    def _root_mean_variance(self, part: slice) -> Tensor | None:
        variance = self.variance[:, part]
        return variance.mean(-1).sqrt() if (variance > 0).any() else None
