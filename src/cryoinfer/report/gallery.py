"""Some particles of a run on its page: image, projection of the map, and residual."""

import base64
import io
from collections.abc import Iterator

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from cryoinfer.report.parts import packaged, prose, section
from cryoinfer.results.gallery import BEST, TYPICAL, WORST, Gallery

_KINDS = {BEST: "Best", TYPICAL: "Typical", WORST: "Worst"}
_NAMES = ("image", "projection", "residual")

_WIDEST_DEVIATIONS = 3.0  # of the image, that are told apart


def gallery_section(found: Gallery) -> str:
    """Return the pictures, with their heading and what is to be known of them."""
    by = (
        f"outlier score among {int(found.compared):,} particles"
        if found.by_outlier_score
        else "correlation with the map's projection, among "
        f"{int(found.compared):,} evenly spaced particles"
    )
    groups = []
    for kind, heading in _KINDS.items():
        rows = np.flatnonzero(found.kind == kind)
        if len(rows):
            cards = "\n".join(_card(found, row) for row in rows.tolist())
            groups.append(f'<h3>{heading}</h3>\n<div class="cards">\n{cards}\n</div>')
    return section(
        "Particles beside the map",
        f"Chosen by {by}: the best, the middle and the worst. A picture each of the "
        "image, of the map's projection at its pose through its CTF, and of what that "
        "leaves of the image.",
        f"<style>\n{packaged('gallery.css')}</style>",
        '<figure class="gallery">',
        *groups,
        f"<figcaption>{prose(_caption(found))}</figcaption>",
        "</figure>",
    )


def _caption(found: Gallery) -> str:
    return (
        f"All are passed through one band, to {float(found.finest_angstrom):.3g} Å. "
        "Image and residual have one grey scale, the projection has its own: it is the "
        "fainter of the two in most images. Contrast is the factor by which the "
        "projection fits the image best; near 0, the image shows nothing of the map. "
        "The map was made of these particles too, and noise can be made to look like "
        "any map: resemblance is no proof, but a residual with the shape of the "
        "particle shows a wrong pose, CTF or map."
    )


def _card(found: Gallery, k: int) -> str:
    side = float(found.side_angstrom[k])
    pictures = (found.images[k], found.projections[k], found.residuals[k])
    drawn = "\n".join(
        f'<span><img src="{source}" alt="{name} of row {found.row[k] + 1}" '
        f'width="{picture.shape[1]}" height="{picture.shape[0]}">{name}</span>'
        for name, picture, source in zip(
            _NAMES, pictures, _sources(*pictures), strict=True
        )
    )
    flag = ' <b class="flag">flagged</b>' if found.flagged[k] else ""
    told = "".join(f"<li>{prose(text)}</li>" for text in _told(found, k))
    return (
        f'<div class="card">\n<div class="three">\n{drawn}\n</div>\n'
        f"<p>Row {found.row[k] + 1:,}{flag} <small>{side:.0f} Å wide</small></p>\n"
        f"<ul>{told}</ul>\n</div>"
    )


def _told(found: Gallery, k: int) -> Iterator[str]:
    if found.by_outlier_score:
        yield f"outlier score {found.outlier_score_nats[k]:.3g}"
    yield f"correlation {found.correlation[k]:.2f}"
    yield f"contrast {found.contrast[k]:.2f}"
    if np.isfinite(found.rotation_sd_degrees[k]):
        yield f"rotation ±{found.rotation_sd_degrees[k]:.2g}°"
        yield f"shift ±{found.shift_sd_angstrom[k]:.2g} Å"


def _sources(
    image: NDArray[np.float32],
    projection: NDArray[np.float32],
    residual: NDArray[np.float32],
) -> tuple[str, str, str]:
    own = float(np.abs(projection).max()) or 1.0
    # Particles are white, as images are read; y points up, as in the pictures of maps.
    return (
        _png(image, _WIDEST_DEVIATIONS),
        _png(projection, own),
        _png(residual, _WIDEST_DEVIATIONS),
    )


def _png(picture: NDArray[np.float32], widest: float) -> str:
    file = io.BytesIO()
    grey = np.clip(picture / (2 * widest) + 0.5, 0, 1)
    imsave(file, grey, cmap="gray", vmin=0, vmax=1, format="png", origin="lower")
    text = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/png;base64,{text}"
