"""The report of a run as one HTML page that needs nothing but itself."""

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib import resources
from string import Template

from torch import Tensor

from cryoinfer.evaluation.fsc import resolution_at
from cryoinfer.report import figures
from cryoinfer.report.assessment import assess, give_verdict
from cryoinfer.report.content import IterationLike, ReportContent, TruthComparison
from cryoinfer.report.style import THEME_COLOURS, format_duration

_HANDEDNESS = (
    "The handedness of the map cannot be determined from untilted images: its mirror "
    "image explains them equally well. Look at an alpha helix or a known domain; if "
    "the hand is wrong, `cryoinfer flip` mirrors the map and the poses together."
)


def render_report(content: ReportContent) -> str:
    """Write one run as a self-contained HTML page.

    Figures are inline SVG, styles are inline, and there are no scripts and no links:
    the page can be kept, mailed and opened from disk.

    Parameters
    ----------
    content : ReportContent

    Returns
    -------
    str
    """
    page = resources.files("cryoinfer.report").joinpath("page.html")
    return Template(page.read_text(encoding="utf-8")).substitute(
        title=escape(content.title),
        subtitle=escape(f"{content.workflow} · {content.created}"),
        verdict=_prose(give_verdict(content)),
        tiles=_tiles(content),
        findings=_findings(content),
        sections="\n".join(_sections(content)),
    )


def _tiles(content: ReportContent) -> str:
    length_angstrom = content.box * content.pixel_size_angstrom
    sd = content.rotation_sd_degrees
    tiles = (
        (
            "Resolution",
            f"{content.resolution_angstrom():.2f} Å",
            "FSC 0.143",
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
    return "\n".join(
        f'<div class="tile"><dt>{name}</dt><dd>{escape(value)}'
        f"<small>{escape(note)}</small></dd></div>"
        for name, value, note in tiles
    )


def _findings(content: ReportContent) -> str:
    # A sign beside the colour, for those who cannot tell the colours apart.
    signs = {"good": ("\N{CHECK MARK}", "Good"), "caution": ("!", "Caution")}
    rows = []
    for finding in assess(content):
        sign, label = signs[finding.level]
        rows.append(
            f'<li class="{finding.level}"><span class="sign" role="img" '
            f'aria-label="{label}">{sign}</span>'
            f"<span>{_prose(finding.text)}</span></li>"
        )
    return "\n".join(rows)


def _sections(content: ReportContent) -> Iterator[str]:
    yield _map_section(content)
    yield _resolution_section(content)
    yield _pose_section(content)
    if content.truth is not None:
        yield _truth_section(content.truth)
    if content.noise_spectrum is not None:
        yield _noise_section(content.noise_spectrum, content)
    yield _course_section(content)
    tables = [
        _table(heads, [[_code(name), _code(value)] for name, value in rows.items()])
        for heads, rows in (
            (("Argument", "Value"), content.arguments),
            (("Software", "Version"), content.versions),
        )
        if rows
    ]
    if tables:
        yield _section("How to repeat this run", "", _columns(*tables))


def _map_section(content: ReportContent) -> str:
    picture = figures.draw_map(
        content.density.double().cpu().numpy(), content.pixel_size_angstrom
    )
    return _section(
        "The map",
        "Density is white. Above, the sum along each axis; below, the plane through "
        "the centre of the box.",
        _figure("map", picture, "Projections and central slices of the map"),
        f'<p class="aside">{_prose(_HANDEDNESS)}</p>',
    )


def _resolution_section(content: ReportContent) -> str:
    curves = figures.draw_fsc(
        content.fsc,
        content.fsc_unmasked,
        content.pixel_size_angstrom,
        content.fsc_masked,
        content.fsc_randomised,
    )
    unmasked = resolution_at(
        content.fsc_unmasked, 0.143, content.box, content.pixel_size_angstrom
    )
    return _section(
        "Resolution",
        f"{content.independence} Their correlation falls below 0.143 at "
        f"{content.resolution_angstrom():.2f} Å with the mask, corrected for what the "
        f"mask itself adds, and at {unmasked:.2f} Å without any mask; the corrected "
        f"curve falls below 0.5 at {content.resolution_angstrom(0.5):.2f} Å.",
        _figure("fsc", curves, "Fourier shell correlation of the half-maps"),
    )


def _pose_section(content: ReportContent) -> str:
    views = figures.draw_views(content.directions.numpy())
    shifts = figures.draw_shifts(content.pose.shift_angstrom.double().cpu().numpy())
    mates = "" if content.symmetry == "C1" else ", symmetry mates included"
    parts = [
        _figure(
            "views",
            views,
            "Distribution of viewing directions",
            f"Viewing directions on an equal-area map of the sphere{mates}. "
            "Dark patches are directions from which few particles were seen.",
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
            _figure(
                "uncertainty",
                figures.draw_uncertainty(inferred),
                "Histograms of the posterior standard deviations",
                "How well each particle's own parameters are known: the standard "
                "deviation of its posterior, about or along one axis. The last bar "
                "holds the one percent beyond the scale.",
            )
        )
    parts.append(
        _figure(
            "shifts",
            shifts,
            "Distribution of shifts",
            "Where the particles sit in their boxes. A spread cut off at a sharp edge "
            "means that the search range was too small.",
            "narrow",
        )
    )
    return _section("Poses", "", *parts)


def _truth_section(truth: TruthComparison) -> str:
    hand = "opposite" if truth.mirrored else "same"
    rows = [
        [name, f"{float(e.median()):.3g}", f"{float(e.double().quantile(0.95)):.3g}"]
        for name, e in (
            ("Rotation error (°)", truth.rotation_error_degrees),
            ("Shift error (Å)", truth.shift_error_angstrom),
        )
    ]
    parts = [_table(("After global alignment", "Median", "95th percentile"), rows)]
    if truth.coverage is not None:
        parts.append(
            _figure(
                "coverage",
                figures.draw_coverage(truth.coverage),
                "Coverage of the posteriors",
                "If the stated uncertainties are right, the true pose lies inside "
                "the 90% region for 90% of the particles. Below the diagonal they "
                "are too small, above it too large.",
                "narrow",
            )
        )
    return _section(
        "Against the truth",
        "These particles were simulated, so the answer is known. The map agrees with "
        f"the true one to {truth.resolution_angstrom:.2f} Å (FSC 0.5) and has the "
        f"{hand} hand.",
        *parts,
    )


def _noise_section(spectrum: Tensor, content: ReportContent) -> str:
    drawn = figures.draw_noise(
        spectrum.double().cpu().numpy(), content.box, content.pixel_size_angstrom
    )
    return _section(
        "Noise",
        "Power of the noise in each ring of Fourier space, as estimated by the run; "
        "one line an optics group.",
        _figure("noise", drawn, "Noise power by resolution"),
    )


def _course_section(content: ReportContent) -> str:
    parts = []
    if content.iterations:
        parts.append(
            _figure(
                "progress",
                figures.draw_progress(content.iterations),
                "Resolution and log likelihood by iteration",
            )
        )
    if content.stage_seconds:
        parts.append(
            _figure(
                "times",
                figures.draw_times(content.stage_seconds),
                "Time of every stage",
            )
        )
        total = max(content.total_seconds, 1e-9)
        rows = [
            [escape(name), format_duration(seconds), f"{seconds / total:.0%}"]
            for name, seconds in content.stage_seconds.items()
        ]
        parts.append(_table(("Stage", "Time", "Share"), rows))
    if content.iterations:
        parts.append(_iteration_table(content.iterations))
    return _section("Course of the run", "", *parts)


def _iteration_table(iterations: Sequence[IterationLike]) -> str:
    rows = [
        [
            escape(i.name),
            f"{i.resolution_angstrom:.2f}",
            f"{i.radius_px:.0f}",
            f"{i.log_likelihood:.2f}",
            f"{i.pose_change_degrees:.2f}",
            format_duration(i.seconds),
        ]
        for i in iterations
    ]
    heads = (
        "Iteration",
        "Resolution (Å)",
        "Radius (Fourier px)",
        "Log likelihood (nats)",
        "Pose change (°)",
        "Time",
    )
    return _table(heads, rows)


def _section(heading: str, lead: str, *parts: str) -> str:
    lead = f"<p>{_prose(lead)}</p>" if lead else ""
    body = "\n".join(parts)
    return f"<section>\n<h2>{heading}</h2>\n{lead}\n{body}\n</section>"


def _figure(
    name: str, svg: str, description: str, caption: str = "", width: str = "wide"
) -> str:
    caption = f"<figcaption>{_prose(caption)}</figcaption>" if caption else ""
    inline = _inline_svg(svg, name, description)
    return f'<figure class="{width}">\n{inline}\n{caption}</figure>'


def _inline_svg(svg: str, name: str, description: str) -> str:
    """Make a figure part of the page: own ids, the page's colours, fluid width."""
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    for colour, variable in THEME_COLOURS.items():
        svg = svg.replace(colour, f"var({variable})")
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(description)}">{rest}'


def _columns(*parts: str) -> str:
    return '<div class="columns">' + "\n".join(parts) + "</div>"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; the cells are HTML already."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "\n".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        '<div class="scroll"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _prose(text: str) -> str:
    """Escape a text, and set what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
