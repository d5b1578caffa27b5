from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
import torch

from cryoinfer.evaluation.against_truth import Coverage
from cryoinfer.report import figures, pose_figures


@dataclass(frozen=True)
class Step:
    name: str = "local"
    seconds: float = 2.0
    radius_px: float = 12.0
    resolution_angstrom: float = 5.0
    gain_nats: float = -100.0
    pose_change_degrees: float = 1.0


rng = np.random.default_rng(0)
vectors = rng.normal(size=(300, 3))
directions = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
curve = torch.linspace(1, 0, 9)

DRAWINGS: dict[str, Callable[[], str | list[str]]] = {
    "fsc": lambda: figures.draw_fsc(curve, curve**2, 1.5, curve, curve**3),
    "fsc of two curves": lambda: figures.draw_fsc(curve, curve**2, 1.5),
    "map": lambda: figures.draw_map(rng.normal(size=(8, 8, 8)), 2.0),
    "empty map": lambda: figures.draw_map(np.zeros((8, 8, 8)), 2.0),
    "views": lambda: pose_figures.draw_views(directions),
    "uncertainty": lambda: pose_figures.draw_uncertainty(
        [(rng.random(50), "shift", "Å")]
    ),
    "exact poses": lambda: pose_figures.draw_uncertainty(
        [(np.zeros(50), "shift", "Å")]
    ),
    "shifts": lambda: pose_figures.draw_shifts(rng.normal(size=(200, 2))),
    "no shifts": lambda: pose_figures.draw_shifts(np.zeros((200, 2))),
    "progress": lambda: figures.draw_progress([Step(), Step(resolution_angstrom=4)]),
    "first iteration": lambda: figures.draw_progress(
        [Step(resolution_angstrom=float("nan"))]
    ),
    "poses that stay": lambda: figures.draw_progress([Step(pose_change_degrees=0.0)]),
    "times": lambda: figures.draw_times({"search": 0.4, "refine": 75.0}),
    "coverage": lambda: figures.draw_coverage(
        Coverage(np.linspace(0, 1, 5), np.linspace(0, 1, 5), 40)
    ),
    "noise": lambda: figures.draw_noise(np.geomspace(1, 99, 12)[None], 20, 1.0),
    "white noise": lambda: figures.draw_noise(np.ones((2, 12)), 20, 1.0),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_standalone_svg(name: str) -> None:
    before = dict(mpl.rcParams)
    drawn = DRAWINGS[name]()
    for svg in [drawn] if isinstance(drawn, str) else drawn:
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert root.get("viewBox")
        for element in root.iter():
            target = element.get("{http://www.w3.org/1999/xlink}href", "#")
            assert target.startswith(("#", "data:"))
    assert dict(mpl.rcParams) == before


def test_figures_are_reproducible() -> None:
    assert DRAWINGS["times"]() == DRAWINGS["times"]()


def test_view_density_is_relative_to_an_even_spread() -> None:
    z = np.linspace(-1, 1, 4001)
    turn = np.arange(4001) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    spiral = np.stack([radius * np.cos(turn), radius * np.sin(turn), z], axis=-1)
    density, _, latitude = pose_figures._smooth_on_sphere(spiral)
    # The spiral is even to much less than a kernel's width, except at its two ends.
    assert np.abs(density - 1).max() < 0.05
    pole = np.tile([[0.0, 0.0, 1.0]], (500, 1))
    density, _, latitude = pose_figures._smooth_on_sphere(pole)
    area = np.diff(np.sin(latitude))
    assert density[-1].min() > 10
    # Sums to one over the sphere: cells of 3 degrees under a kernel of 18.
    assert (density.mean(1) * area).sum() / 2 == pytest.approx(1, abs=0.01)
