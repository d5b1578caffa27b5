"""The report of a run as one HTML page that needs nothing but itself."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from cryoinfer.evaluation.against_truth import TruthComparison
from cryoinfer.evaluation.fsc import resolution_at
from cryoinfer.inference.outlier_score import FALSE_ALARMS, is_outlier
from cryoinfer.report import figures, pose_figures
from cryoinfer.report.assessment import assess, give_verdict
from cryoinfer.report.content import ReportContent
from cryoinfer.report.gallery import gallery_section
from cryoinfer.report.guinier import GUINIER_CAPTION, draw_guinier
from cryoinfer.report.isosurface import Isosurface, has_surface, isosurface_view
from cryoinfer.report.parts import (
    figure,
    page,
    prose,
    remarks_section,
    repeat_section,
    section,
    table,
    tiles,
    times,
)
from cryoinfer.report.trials import trial_section
from cryoinfer.results.run_result import Iteration
from cryoinfer.wording import format_duration


def render_report(content: ReportContent) -> str:
    """Write one run as a self-contained HTML page.

    Figures are inline SVG; styles, scripts and data are inline too, and there are no
    links: the page can be kept, mailed and opened from disk.

    Parameters
    ----------
    content : ReportContent

    Returns
    -------
    str
    """
    return page(
        title=content.title,
        subtitle=f"{content.workflow} · {content.created}",
        verdict=give_verdict(content),
        tiles=_tiles(content),
        findings=assess(content),
        sections=_sections(content),
    )


def _tiles(content: ReportContent) -> str:
    length_angstrom = content.box * content.pixel_size_angstrom
    sd = content.rotation_sd_degrees
    return tiles(
        (
            "Resolution",
            _resolution(content),
            _reserve(content),
        ),
        (
            "Particles",
            f"{len(content.pose):,}",
            "" if sd is None else f"rotation sd {float(sd.median()):.2g}°",
        ),
        (
            "Pixel size",
            f"{content.pixel_size_angstrom:.4g} Å",
            f"Nyquist {content.nyquist_angstrom:.2f} Å",
        ),
        ("Box", f"{content.box} px", f"{length_angstrom:.0f} Å"),
        ("Symmetry", content.symmetry, "point group"),
        ("Time", format_duration(content.total_seconds), "all stages"),
    )


def _resolution(content: ReportContent) -> str:
    """Return the resolution of the map, none of one whose halves agree nowhere."""
    if content.nothing_found or content.agrees_nowhere:
        return "none"
    return f"{content.resolution_angstrom():.2f} Å"


def _reserve(content: ReportContent) -> str:
    """Return what is to be read beside the resolution."""
    if content.nothing_found:
        return "no structure found"
    if content.halves == "one map":
        return "FSC 0.143, one map for both"
    return "FSC 0.143, shared start" if content.agrees_as_begun else "FSC 0.143"


def _sections(content: ReportContent) -> Iterator[str]:
    yield _map_section(content)
    yield _resolution_section(content)
    if content.gallery is not None:
        yield gallery_section(content.gallery)
    yield _pose_section(content)
    if content.outlier_score_nats is not None:
        yield _outlier_section(content.outlier_score_nats)
    if content.truth is not None:
        yield _truth_section(content.truth)
    if content.trials:
        yield trial_section(content.trials)
    if content.noise_spectrum is not None:
        yield _noise_section(content.noise_spectrum, content)
    yield _course_section(content)
    yield remarks_section(content.remarks)
    yield repeat_section(content.arguments, content.versions)


def _map_section(content: ReportContent) -> str:
    density = content.density.double().cpu().numpy()
    nothing = bool(content.nothing_found)
    picture = figures.draw_map(density, content.pixel_size_angstrom)
    return section(
        "The map",
        f"{'No structure was found: this is a map of noise. ' * nothing}"
        "Its surface at one level of density, and below it the sum along each axis and "
        "the plane through the centre of the box.",
        f'<p class="aside">{prose(content.handedness)}</p>'
        if content.handedness
        else "",
        isosurface_view(Isosurface(density, content.pixel_size_angstrom))
        if has_surface(density)
        else "",
        figure(
            "map",
            picture,
            "Projections and central slices of the map, along z, y and x",
            figures.MAP_CAPTION,
            shape="map",
        ),
    )


def _resolution_section(content: ReportContent) -> str:
    curves = figures.draw_fsc(
        content.fsc,
        content.fsc_unmasked,
        content.pixel_size_angstrom,
        content.fsc_masked,
        content.fsc_randomised,
    )

    def reach(curve: Tensor, threshold: float) -> str:
        if float(curve[1]) < threshold:
            return f"is below {threshold} from the first shell on"
        finest = resolution_at(
            curve, threshold, content.box, content.pixel_size_angstrom
        )
        return f"stays above {threshold} to {finest:.2f} Å"

    nothing = bool(content.nothing_found)
    return section(
        "Resolution",
        f"{'No structure was found: these curves show no resolution. ' * nothing}"
        f"{content.independence} Their correlation {reach(content.fsc, 0.143)} with "
        "the mask, corrected for what the mask itself adds, and "
        f"{reach(content.fsc_unmasked, 0.143)} without any mask; the corrected curve "
        f"{reach(content.fsc, 0.5)}.",
        figure(
            "fsc",
            curves,
            "Fourier shell correlation of the half-maps",
            figures.FSC_CAPTION,
            shape="middle",
        ),
        figure(
            "guinier",
            draw_guinier(content.density, content.pixel_size_angstrom, content.fsc),
            "Guinier plot: logarithm of the map's amplitude over 1/d²",
            GUINIER_CAPTION,
        )
        if has_surface(content.density.cpu().numpy())
        else "",
    )


def _pose_section(content: ReportContent) -> str:
    views = pose_figures.draw_views(content.directions.numpy())
    shifts = pose_figures.draw_shifts(
        content.pose.shift_angstrom.double().cpu().numpy()
    )
    mates = "" if content.symmetry == "C1" else ", symmetry mates included"
    parts = [
        figure(
            "views",
            views,
            "Distribution of viewing directions",
            f"Viewing directions on an equal-area map of the sphere{mates}. "
            "Dark patches are directions from which few particles were seen.",
            "middle",
        )
    ]
    inferred = [
        (values.cpu().numpy(), label, unit)
        for values, label, unit in (
            (content.rotation_sd_degrees, "rotation", "°"),
            (content.shift_sd_angstrom, "shift", "Å"),
            (content.defocus_sd_angstrom, "defocus", "Å"),
        )
        if values is not None
    ]
    if inferred:
        parts.append(
            figure(
                "uncertainty",
                pose_figures.draw_uncertainty(inferred),
                "Histograms of the posterior standard deviations",
                "Uncertainty of each particle: the standard deviation of its "
                "posterior, about or along one axis. The last bar holds the one "
                "percent beyond the scale.",
                "panels" if len(inferred) > 1 else "narrow",
            )
        )
    parts.append(
        figure(
            "shifts",
            shifts,
            "Distribution of shifts",
            "Where the particles sit in their boxes. A spread cut off at a sharp edge "
            "means that the search range was too small.",
            "narrow",
        )
    )
    return section("Poses", "", *parts)


def _outlier_section(score: Tensor) -> str:
    above = int(is_outlier(score).sum())
    return section(
        "Images unlike the map",
        f"{above:,} of {len(score):,} images are flagged as outliers.",
        figure(
            "outliers",
            figures.draw_outlier_scores(score.double().numpy()),
            "Histogram of outlier scores, with the threshold",
            "The outlier score is minus the log of the chance that an image of the map "
            "has as odd a contrast and residual. Images of the map alone would follow "
            f"the dashed line, and {FALSE_ALARMS:.0%} of them would lie beyond the "
            "threshold: not all that is flagged is junk. Nor is all junk flagged: what "
            "a wrong map has been made of fits it.",
            "middle",
        ),
    )


def _truth_section(truth: TruthComparison) -> str:
    hand = "opposite" if truth.mirrored else "same"
    reached = truth.resolution_angstrom
    far = "nowhere" if reached is None else f"to {reached:.2f} Å"
    rows = [
        [name, f"{float(e.median()):.3g}", f"{float(e.double().quantile(0.95)):.3g}"]
        for name, e in (
            ("Rotation error (°)", truth.rotation_error_degrees),
            ("Shift error (Å)", truth.shift_error_angstrom),
        )
    ]
    parts = [table(("After global alignment", "Median", "95th percentile"), rows)]
    if truth.coverage is not None:
        parts.append(
            figure(
                "coverage",
                figures.draw_coverage(truth.coverage),
                "Coverage of the posteriors",
                "If the stated uncertainties are right, the true pose lies inside "
                "the 90% region for 90% of the particles. Below the diagonal they "
                "are too small, above it too large.",
                "narrow",
            )
        )
    return section(
        "Against the truth",
        "These particles were simulated, so the answer is known. The map agrees with "
        f"the true one {far} (FSC 0.5) and has the {hand} hand.",
        *parts,
    )


def _noise_section(spectrum: Tensor, content: ReportContent) -> str:
    drawn = figures.draw_noise(
        spectrum.double().cpu().numpy(), content.box, content.pixel_size_angstrom
    )
    return section(
        "Noise",
        "",
        figure(
            "noise",
            drawn,
            "Noise power by resolution",
            "Power of the noise in each ring of Fourier space, as estimated by the "
            "run; one line for each optics group. Widths of poses rely on it: what of "
            "the particles the map does not explain is in it too.",
        ),
    )


def _course_section(content: ReportContent) -> str:
    parts = []
    if content.iterations:
        parts.append(
            figure(
                "progress",
                figures.draw_progress(content.iterations),
                "Agreement of halves, gain, and how far poses moved, by iteration",
                "A run has settled when poses move by less than they are known to, and "
                "resolution and gain stay. The gain is how many nats more likely an "
                "image is with the map than without. Coefficients beyond the radius "
                "of an iteration gain nothing, so that it does not fall as the radius "
                "grows, as the log-likelihood does. It is no proof of a right map: "
                "fitted noise adds to it.",
                shape="panels",
            )
        )
    parts += times(content.stage_seconds)
    if content.iterations:
        parts.append(_iteration_table(content.iterations))
    return section("Course of the run", "", *parts)


def _iteration_table(iterations: Sequence[Iteration]) -> str:
    rows = [
        [
            prose(i.name),
            f"{i.resolution_angstrom:.2f}",
            f"{i.radius_px:.0f}",
            f"{i.gain_nats:.2f}",
            f"{i.pose_change_degrees:.2f}",
            format_duration(i.seconds),
        ]
        for i in iterations
    ]
    heads = (
        "Iteration",
        "Halves agree to (Å)",
        "Radius (Fourier px)",
        "Gain over no map (nats per particle)",
        "Pose change (°)",
        "Time",
    )
    return table(heads, rows)
