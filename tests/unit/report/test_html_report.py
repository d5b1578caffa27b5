import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

from cryoinfer.evaluation.against_truth import Coverage, TruthComparison
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.records import Pose
from cryoinfer.report import ReportContent, render_report
from cryoinfer.report.assessment import (
    assess,
    give_verdict,
)
from cryoinfer.report.style import THEME_COLOURS
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.results.run_result import Iteration

BOX, PIXEL, COUNT = 16, 1.5, 400


@pytest.fixture
def content() -> ReportContent:
    generator = torch.Generator().manual_seed(5)
    pose = Pose(
        random_rotations(COUNT, generator), torch.randn(COUNT, 2, generator=generator)
    )
    variance = torch.tensor([0.02, 0.02, 0.02, 0.5, 0.5, 0.0]) ** 2
    fsc = torch.tensor([1.0, 1.0, 0.9, 0.8, 0.5, 0.1, 0.0, 0.0, 0.0])
    return ReportContent(
        title="run_7",
        workflow="Ab initio",
        created="2024-05-02",
        symmetry="C2",
        pixel_size_angstrom=PIXEL,
        density=torch.randn((BOX, BOX, BOX), generator=generator),
        fsc=fsc,
        fsc_unmasked=fsc**2,
        pose=pose,
        variance=variance.expand(COUNT, 6),
        stage_seconds={"search": 61.0, "refine": 20.0},
        independence="Each half has been refined alone.",
        iterations=(
            Iteration("grid 1", 3.0, 8.0, 9.0, -50.0, 4.0),
            Iteration("local 2", 3.0, 8.0, 8.9, -49.0, 0.4),
        ),
        noise_spectrum=torch.ones(1, 12),
        arguments={"--symmetry": "C2"},
        versions={"cryoinfer": "1.2.3"},
    )


class _Checker(HTMLParser):
    """Collects ids, and the tags that are opened and closed."""

    VOID = frozenset({"meta", "br", "img", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.ids.update(value or "" for name, value in attrs if name == "id")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.ids.update(value or "" for name, value in attrs if name == "id")


def test_page_is_whole_and_needs_nothing_else(content: ReportContent) -> None:
    page = render_report(content)
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert max(checker.ids.values()) == 1
    assert not {"link", "iframe", "a"} & set(checker.tags)
    targets = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert all(target.startswith(("#", "data:image/png")) for target in targets)
    inner = {target[1:] for target in targets if target.startswith("#")}
    inner |= set(re.findall(r"url\(#([^)]*)\)", page))
    assert inner <= set(checker.ids)
    assert checker.tags["figure"] == 10
    # Of every figure it is said what it shows and what is to be minded.
    assert checker.tags["figcaption"] == 10


def test_a_phone_can_show_it(content: ReportContent, require_legible) -> None:
    # As workflows name their stages.
    stages = {"refinement to 3.30 A": 2.0}
    page = render_report(replace(content, stage_seconds=stages))
    assert "refinement to 3.30 Å" in page
    require_legible(page)


def test_canary_small_text_is_seen(content: ReportContent, require_legible) -> None:
    page = render_report(content)
    with pytest.raises(AssertionError, match="middle"):
        require_legible(page.replace('viewBox="0 0 3', 'viewBox="0 0 5'))
    with pytest.raises(AssertionError):
        require_legible(page.replace("Å", "A"))
    with pytest.raises(AssertionError):
        require_legible(page.replace('<table class="many">', "<table>"))


def test_what_cannot_be_compared_is_not_drawn(content: ReportContent) -> None:
    page = render_report(content)
    # It falls whenever the radius grows, over the best of runs.
    assert "log likelihood by iteration" not in page
    assert "how far poses moved, by iteration" in page
    assert "Gain over no map (nats per particle)" in page


def test_figures_take_the_colours_of_the_page(content: ReportContent) -> None:
    body = render_report(content).split("</style>", 1)[1]
    assert not any(colour in body for colour in THEME_COLOURS)
    assert "var(--ink)" in body


def test_page_says_what_matters(content: ReportContent) -> None:
    known = replace(
        content,
        handedness="Of the poses. `cryoinfer flip` mirrors it.",
        remarks=("2 images are in both halves.",),
    )
    page = render_report(known)
    # The FSC falls from 0.5 to 0.1 between shells 4 and 5: 0.143 at 4.8925.
    assert f"{BOX * PIXEL / 4.8925:.2f} Å" in page
    assert "Of the poses. <code>cryoinfer flip</code> mirrors it." in page
    assert "What was read</h2>" in page
    assert "<li>2 images are in both halves.</li>" in page
    assert "Each half has been refined alone." in page
    assert "1 min 21 s" in page
    assert "C2" in page
    assert "symmetry mates included" in page
    assert "1.2.3" in page
    assert "Against the truth" not in page


def test_page_says_how_far_halves_agree(content: ReportContent) -> None:
    agreed = torch.ones(BOX // 2 + 1)
    nowhere = torch.zeros(BOX // 2 + 1)
    found = render_report(replace(content, fsc=nowhere))
    assert "gave two half-maps that agree nowhere: there is no resolution." in found
    assert "<dt>Resolution</dt><dd>none" in found
    assert 'class="sign" role="img" aria-label="Caution">!' in found
    assert f"{BOX * PIXEL:.2f} Å" not in found
    page = render_report(replace(content, fsc=agreed, fsc_unmasked=nowhere))
    assert "Their correlation stays above 0.143 to 3.00 Å with the mask" in page
    assert "is below 0.143 from the first shell on without any mask" in page


def test_a_map_has_a_surface_unless_it_is_empty(content: ReportContent) -> None:
    page = render_report(content)
    assert page.count('id="isosurface"') == 1
    assert "map of noise" not in page
    nothing = render_report(replace(content, nothing_found="No structure."))
    assert "this is a map of noise" in nothing
    empty = render_report(replace(content, density=torch.zeros(BOX, BOX, BOX)))
    assert 'id="isosurface"' not in empty


def test_truth_is_shown_when_known(content: ReportContent) -> None:
    level = np.linspace(0, 1, 11)
    truth = TruthComparison(
        torch.full((COUNT,), 1.25),
        torch.full((COUNT,), 0.5),
        True,
        4.44,
        Coverage(level, level, COUNT),
    )
    page = render_report(replace(content, truth=truth))
    assert "4.44 Å (FSC 0.5) and has the opposite hand" in page
    assert "<td>1.25</td>" in page
    assert "Coverage of the posteriors" in page


def test_a_bare_run_can_be_reported(content: ReportContent) -> None:
    bare = replace(
        content,
        variance=torch.zeros(COUNT, 6),
        iterations=(),
        noise_spectrum=None,
        arguments={},
        versions={},
        stage_seconds={},
    )
    page = render_report(bare)
    assert "posterior standard deviations" not in page
    assert "How to repeat" not in page


def test_text_of_the_user_is_escaped(content: ReportContent) -> None:
    page = render_report(
        replace(content, title="<b>$x</b>", warnings=("a < b",), arguments={"&": "<i>"})
    )
    assert "<b>" not in page
    assert "&lt;b&gt;$x" in page
    assert "a &lt; b" in page
    assert "&lt;i&gt;" in page


def test_verdict_fits_the_resolution(content: ReportContent) -> None:
    verdict = give_verdict(content)
    assert verdict.startswith("400 particles gave a map at 4.91 Å.")
    assert "alpha helices" in verdict
    assert verdict.endswith("All checks passed.")
    warned = give_verdict(replace(content, warnings=("dust",)))
    assert warned.endswith("One of the checks below asks for caution.")


def cautions(content: ReportContent) -> str:
    return " ".join(f.text for f in assess(content) if f.level == "caution")


def test_good_run_raises_no_caution(content: ReportContent) -> None:
    assert cautions(content) == ""


def test_each_fault_raises_its_caution(content: ReportContent) -> None:
    still_agrees = replace(content, fsc=torch.ones(9))
    assert "at Nyquist (3.00 Å)" in cautions(still_agrees)
    # What the halves share is said of those too.
    alike = cautions(replace(still_agrees, halves="one map"))
    assert "at Nyquist (3.00 Å)" in alike
    assert "The poses of both halves come from one map" in alike
    # A run's own curve is zero in its last shell, in which nothing is measured.
    last = still_agrees.fsc.clone()
    last[-1] = 0.0
    at_the_end = cautions(replace(content, fsc=last))
    assert "at Nyquist (3.00 Å)" in at_the_end
    assert "rises again" not in at_the_end
    rising = content.fsc.clone()
    rising[-3:] = 0.4
    assert "rises again" in cautions(replace(content, fsc=rising))
    one_view = Pose(
        torch.eye(3, dtype=torch.float64).expand(COUNT, 3, 3),
        content.pose.shift_angstrom,
    )
    assert "hardly measured" in cautions(replace(content, pose=one_view))
    # The mates of one view alone, of a group whose mates see all sides, and of C2.
    assert "crowd within" not in cautions(replace(content, pose=one_view))
    crowd = replace(content, pose=one_view, symmetry="O")
    assert "crowd within the asymmetric unit of O" in cautions(crowd)
    loose = content.variance + 0.1
    assert "uncertain by more than 10°" in cautions(replace(content, variance=loose))
    steps = (
        content.iterations[0],
        replace(content.iterations[1], resolution_angstrom=7),
    )
    assert "may not have finished" in cautions(replace(content, iterations=steps))
    assert cautions(replace(content, warnings=("dust",))) == "dust"


@pytest.mark.parametrize(
    ("change", "reserve", "caution"),
    [
        (
            {"halves": "one map"},
            "one map for both",
            "poses of both halves come from one map",
        ),
        ({"shared_resolution_angstrom": 4.8}, "shared start", "only to the resolution"),
        ({"nothing_found": "No structure."}, "no structure found", "No structure."),
    ],
)
def test_what_halves_share_is_no_resolution(
    content: ReportContent, change: dict, reserve: str, caution: str
) -> None:
    """The halves agree to 4.91 Å; the map that both began with would to 4.8."""
    page = render_report(replace(content, **change))
    assert f"{reserve}</small>" in page
    assert caution in cautions(replace(content, **change))
    assert "independent halves" not in page
    assert "independent halves" in render_report(content)
    # Beyond what they share it is their own.
    beyond = replace(content, shared_resolution_angstrom=5.0)
    assert cautions(beyond) == ""


def test_of_nothing_nothing_is_praised(content: ReportContent) -> None:
    nothing = replace(content, nothing_found="No structure.", warnings=("dust",))
    assert give_verdict(nothing) == "No structure."
    assert [finding.level for finding in assess(nothing)] == ["caution", "caution"]
    page = render_report(nothing)
    assert "4.91 Å</dd>" not in page
    assert ">none<small>" in page


def test_given_poses_are_no_better_than_what_found_them(
    content: ReportContent,
) -> None:
    page = render_report(replace(content, halves="given"))
    assert "as they were when the poses were found" in page
    assert "independent halves" not in page


def test_an_encoder_is_judged_where_it_has_posed(content: ReportContent) -> None:
    ranks = {"rotation": (5,) * 20}
    coverage = tuple(level / 20 for level in range(21))
    good = CalibrationTrial(100, 2.0, coverage, 0.03, ranks, {"rotation": 0.5})
    assert cautions(replace(content, trials={"encoder": good})) == ""
    lost = replace(good, median_degrees=40.0)
    said = cautions(replace(content, trials={"encoder": lost}))
    assert "off by 40° or more" in said
    narrow = replace(good, coverage=tuple(0.4 * level for level in coverage))
    assert "too narrow" in cautions(replace(content, trials={"encoder": narrow}))


def test_lengths_have_the_sign_of_their_unit(content: ReportContent) -> None:
    steps = tuple(
        replace(one, name="refinement to 4.9 A") for one in content.iterations
    )
    page = render_report(
        replace(
            content, iterations=steps, stage_seconds={"global search to 12.8 A": 2.0}
        )
    )
    assert "refinement to 4.9 Å" in page
    assert "global search to 12.8 Å" in page
    assert not re.search(r"\d A\b", page)


def test_views_follow_symmetry_and_are_thinned(content: ReportContent) -> None:
    views = content.directions
    assert views.shape == (2 * COUNT, 3)
    # C2 about z: the mates differ by the sign of x and y.
    torch.testing.assert_close(
        views[COUNT:], views[:COUNT] * torch.tensor([-1.0, -1.0, 1.0]).double()
    )
    many = Pose(
        content.pose.rotation.repeat(40, 1, 1),
        content.pose.shift_angstrom.repeat(40, 1),
    )
    assert 5000 <= len(replace(content, pose=many).directions) < 6000


def test_standard_deviations_are_root_mean_squares(content: ReportContent) -> None:
    assert content.rotation_sd_degrees is not None
    assert content.shift_sd_angstrom is not None
    torch.testing.assert_close(
        content.rotation_sd_degrees, torch.full((COUNT,), np.rad2deg(0.02).item())
    )
    torch.testing.assert_close(content.shift_sd_angstrom, torch.full((COUNT,), 0.5))
    assert content.defocus_sd_angstrom is None
