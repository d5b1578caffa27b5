"""Some particles of a run beside what its map says that they should look like."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.evaluation.rigid_search import resampled
from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier
from cryoinfer.inference.outlier_score import is_outlier
from cryoinfer.io.replacing import replace_file
from cryoinfer.physics.image_model import ImageModel
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.physics.structures.volume import VoxelVolume
from cryoinfer.records import Latents
from cryoinfer.results import layout
from cryoinfer.results.run_arrays import run_arrays
from cryoinfer.results.run_result import Reconstruction, RunResult

EACH = 4
"""Particles of a kind."""

MOST_PIXELS = 96
"""Along an edge of a picture, which is no wider than a thumb."""

BEST, TYPICAL, WORST = 0, 1, 2

_FINEST_ANGSTROM = 15.0
"""Of what is shown: finer detail of a single image is noise."""

_COARSEST_SHARE = 0.5
"""Of the box: what is coarser is most often the ice."""

_SAMPLE = 400
"""Particles that are compared with the map where the run has not done so."""

_AT_ONCE = 100


@dataclass(frozen=True)
class Gallery:
    """Pictures of k particles, m pixels wide; of a kind, the best come first.

    Attributes
    ----------
    kind : ndarray of int64, shape (k,)
        ``BEST``, ``TYPICAL`` or ``WORST``.
    row : ndarray of int64, shape (k,)
        In the file of particles, from 0.
    images, projections : ndarray of float32, shape (k, m, m)
        Through one band of frequencies, over the standard deviation of the image; of
        the map at the particle's pose, through its CTF, times ``contrast``.
    contrast : ndarray, shape (k,)
        By which the projection fits the image best: 1 where both have the scale of the
        map, 0 where the image shows nothing of it.
    correlation : ndarray, shape (k,)
        Of image and projection.
    outlier_score_nats : ndarray, shape (k,)
        NaN where the run has none.
    flagged : ndarray of bool, shape (k,)
        As outliers.
    rotation_sd_degrees, shift_sd_angstrom : ndarray, shape (k,)
        Root mean square over the axes; NaN where poses were given.
    side_angstrom : ndarray, shape (k,)
        Of the pictures.
    finest_angstrom : ndarray, shape ()
        The end of the band.
    compared : ndarray of int64, shape ()
        Among how many particles these were chosen.
    """

    kind: NDArray[np.int64]
    row: NDArray[np.int64]
    images: NDArray[np.float32]
    projections: NDArray[np.float32]
    contrast: NDArray[np.float64]
    correlation: NDArray[np.float64]
    outlier_score_nats: NDArray[np.float64]
    flagged: NDArray[np.bool_]
    rotation_sd_degrees: NDArray[np.float64]
    shift_sd_angstrom: NDArray[np.float64]
    side_angstrom: NDArray[np.float64]
    finest_angstrom: NDArray[np.float64]
    compared: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    @property
    def by_outlier_score(self) -> bool:
        """Whether the run had scores; the correlation takes their place otherwise."""
        return bool(np.isfinite(self.outlier_score_nats).all())

    @property
    def residuals(self) -> NDArray[np.float32]:
        """What the projections leave of the images, shape (k, m, m)."""
        return self.images - self.projections

    def write(self, folder: Path) -> None:
        """Write the gallery of a run; pictures with 11 bits a pixel."""
        arrays: dict[str, Any] = vars(self).copy()
        for name in ("images", "projections"):
            arrays[name] = arrays[name].astype(np.float16)
        path = folder / layout.GALLERY
        replace_file(path, lambda partial: np.savez_compressed(partial, **arrays))

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the gallery of a run, or None if it has none.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        path = folder / layout.GALLERY
        if not path.exists():
            return None
        with run_arrays(path) as arrays:
            found = {one.name: arrays[one.name] for one in fields(cls)}
            for name in ("images", "projections"):
                found[name] = found[name].astype(np.float32)
            gallery = cls(**found)
            k, m, _ = gallery.images.shape
            for name, array in found.items():
                picture = name in ("images", "projections")
                one = name in ("finest_angstrom", "compared")
                if array.shape != ((k, m, m) if picture else () if one else (k,)):
                    raise ValueError(f"{name} has the shape {array.shape}")
            return gallery


def gallery_of(
    particles: Particles,
    result: RunResult | Reconstruction,
    used: Tensor | None = None,
) -> Gallery | None:
    """Choose particles by how well the map fits them, and draw them.

    By outlier score where the run has them; otherwise by the correlation with the map's
    projection, among some hundred evenly spaced particles.

    Parameters
    ----------
    particles : Particles
        n of them, as they were given to the run.
    result : RunResult or Reconstruction
        In the second case particles have poses.
    used : Tensor of bool, shape (n,), optional
        Which the run has used.

    Returns
    -------
    Gallery or None
        None where no image can be read, or nothing is in the map.
    """
    maps = result.reconstruction if isinstance(result, RunResult) else result
    known = torch.ones(len(particles), dtype=torch.bool) if used is None else used.cpu()
    score = None
    if isinstance(result, RunResult):
        score = result.outlier_score_nats
        if result.unreadable is not None:
            known = known & ~result.unreadable.cpu()
    rows = torch.nonzero(known).squeeze(1)
    readable = all(stack.path.exists() for stack in particles.stacks)
    if len(rows) == 0 or not readable or not bool(maps.density.any()):
        return None
    view = _View.of(particles, result, maps)
    compared = len(rows)
    if score is not None:
        rank = -score.double().cpu()[rows].nan_to_num(nan=-torch.inf)
    else:
        rows = rows[:: max(1, -(-len(rows) // _SAMPLE))]
        compared = len(rows)
        rank = torch.cat(
            [view.compare(part).correlation for part in rows.split(_AT_ONCE)]
        )
    chosen, kind = _chosen(rank)
    return view.gallery(rows[chosen], kind, compared, score)


@dataclass(frozen=True)
class _Compared:
    """Images and projections, shape (k, m, m), and how they fit, shape (k,)."""

    images: Tensor
    projections: Tensor
    contrast: Tensor
    correlation: Tensor


@dataclass(frozen=True)
class _View:
    """Particles and map, as pictures of one size have them."""

    particles: Particles
    latents: Latents
    variance: Tensor | None
    model: ImageModel
    finest_angstrom: float

    @classmethod
    def of(
        cls,
        particles: Particles,
        result: RunResult | Reconstruction,
        maps: Reconstruction,
    ) -> Self:
        pixels = min(MOST_PIXELS, int(particles.boxes.min()) // 2 * 2)
        variance = None
        if isinstance(result, RunResult):
            latents = result.latents
            covariance = result.inferred.covariance[:, 0]
            variance = covariance.diagonal(dim1=-2, dim2=-1).double().cpu()
        else:
            assert particles.pose is not None
            none = torch.zeros(len(particles), dtype=torch.float64)
            latents = Latents.rigid(particles.pose, none)
        n, pixel_size = maps.density.shape[-1], maps.pixel_size_angstrom
        finest = max(_FINEST_ANGSTROM, 2 * pixel_size, maps.resolution_angstrom)
        # No finer than what is shown; a projection adds up voxels, then fewer of them.
        box = min(n, max(8, 2 * int(np.ceil(1.5 * n * pixel_size / finest))))
        coarse = resampled(maps.density.float().cpu(), box) * (n / box)
        volume = VoxelVolume(coarse.float(), pixel_size * n / box)
        model = ImageModel(volume, GaussianNoise.white(1.0, pixels), pixels)
        return cls(particles, latents.to("cpu"), variance, model, finest)

    def compare(self, rows: Tensor) -> _Compared:
        """Compare some images with the map at their poses."""
        pixels = self.model.box
        optics = self.particles.optics[rows]
        sides = self._sides(rows)
        images = torch.empty(len(rows), pixels, pixels)
        for of_one_box in self._by_box(rows):
            read = self.particles.images(rows[of_one_box])
            images[of_one_box] = _cropped(read, pixels)
        seen = replace(optics, pixel_size_angstrom=sides / pixels)
        expected = self.model.mean(self.latents[rows], seen).float()
        images, expected = (
            self._through_band(one, sides) for one in (images, expected)
        )
        both = (images * expected).sum((1, 2))
        own, whole = expected.square().sum((1, 2)), images.square().sum((1, 2))
        contrast = both / own.clamp(min=torch.finfo(own.dtype).tiny)
        correlation = both / (own * whole).sqrt().clamp(min=torch.finfo(own.dtype).tiny)
        scale = images.std((1, 2), keepdim=True).clamp(min=torch.finfo(own.dtype).tiny)
        fitted = contrast[:, None, None] * expected
        return _Compared(images / scale, fitted / scale, contrast, correlation.double())

    def gallery(
        self, rows: Tensor, kind: Tensor, compared: int, score: Tensor | None
    ) -> Gallery:
        """Draw the chosen particles."""
        found = self.compare(rows)
        unknown = torch.full((len(rows),), torch.nan, dtype=torch.float64)
        rotation_sd = shift_sd = unknown
        if self.variance is not None:
            variance = self.variance[rows]
            rotation_sd = torch.rad2deg(variance[:, :3].mean(1).sqrt())
            shift_sd = variance[:, 3:5].mean(1).sqrt()
        scores = unknown if score is None else score.double().cpu()[rows]
        flagged = is_outlier(scores) if score is not None else unknown > 0
        return Gallery(
            kind=kind.numpy(),
            row=rows.numpy(),
            images=found.images.numpy(),
            projections=found.projections.numpy(),
            contrast=found.contrast.double().numpy(),
            correlation=found.correlation.numpy(),
            outlier_score_nats=scores.numpy(),
            flagged=flagged.numpy(),
            rotation_sd_degrees=rotation_sd.numpy(),
            shift_sd_angstrom=shift_sd.numpy(),
            side_angstrom=self._sides(rows).numpy(),
            finest_angstrom=np.array(self.finest_angstrom),
            compared=np.array(compared),
        )

    def _sides(self, rows: Tensor) -> Tensor:
        pixel_size = self.particles.optics.pixel_size_angstrom[rows]
        return pixel_size.double() * self.particles.boxes[rows]

    def _by_box(self, rows: Tensor) -> Iterator[Tensor]:
        boxes = self.particles.boxes[rows]
        for box in boxes.unique():
            yield torch.nonzero(boxes == box).squeeze(1)

    def _through_band(self, images: Tensor, sides: Tensor) -> Tensor:
        """Return images with Gaussian ends of the band, and without their mean."""
        box = images.shape[-1]
        rows = torch.fft.fftfreq(box, 1 / box)
        squared = rows[:, None] ** 2 + torch.arange(box // 2 + 1) ** 2
        finest = (sides.float() / self.finest_angstrom)[:, None, None] ** 2
        # The amplitude is 1/e at the finest frequency, and rises to 1 - 1/e.
        passed = torch.exp(-squared / finest)
        passed = passed * (1 - torch.exp(-squared * _COARSEST_SHARE**2))
        return fourier_to_image(image_to_fourier(images) * passed, box)


def _cropped(images: Tensor, pixels: int) -> Tensor:
    """Return images on fewer pixels, without what these cannot show."""
    box = images.shape[-1]
    if box == pixels:
        return images
    half = image_to_fourier(images)
    kept = torch.fft.fftshift(half, dim=-2)
    first = box // 2 - pixels // 2
    kept = kept[..., first : first + pixels, : pixels // 2 + 1].clone()
    # Of the last frequency only half would be there.
    kept[..., 0, :] = 0
    kept[..., -1] = 0
    kept = torch.fft.ifftshift(kept, dim=-2)
    return fourier_to_image(kept * (pixels / box), pixels)


def _chosen(rank: Tensor) -> tuple[Tensor, Tensor]:
    """Return best, middle and worst by rank, and which of these they are."""
    order = rank.argsort(descending=True, stable=True)
    each = min(EACH, len(order) // 3)
    if each == 0:
        return order, torch.full((len(order),), TYPICAL)
    first = (len(order) - each) // 2
    parts = (order[:each], order[first : first + each], order[-each:])
    kind = torch.tensor([BEST, TYPICAL, WORST]).repeat_interleave(each)
    return torch.cat(parts), kind
