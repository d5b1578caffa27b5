"""What a reader asks first, each answer with its command, day and machine."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from printed import (
    HALF_PRECISION,
    KERNELS,
    NOISE,
    PRODUCTS,
    Caution,
    Column,
    cell,
    table,
)
from rows import Results, Row
from streaming import break_evens

COLUMNS = (
    Column("claim", "claim"),
    Column("figure", "figure"),
    Column("section", "section"),
    Column("command", "command"),
)


@dataclass(frozen=True)
class Source:
    """Rows of one benchmark that a claim rests on.

    Attributes
    ----------
    rows : sequence of Row
    section : int
        Of README.md.
    command : str
        That measures them.
    changes : str
        Marks of the changes that concern them (``printed.py``).
    """

    rows: Sequence[Row]
    section: int
    command: str
    changes: str = ""

    @classmethod
    def of(
        cls, name: str, section: int, changes: str = "", options: str = ""
    ) -> "Source":
        """Return all rows of a benchmark."""
        command = f"`{' '.join([f'{name}.py', options]).strip()}`"
        return cls(Results(name, trial=False).rows(), section, command, changes)

    def where(self, **key: Any) -> "Source":
        """Return the rows whose values are those of ``key``."""
        kept = [r for r in self.rows if all(r[one] == v for one, v in key.items())]
        return replace(self, rows=kept)

    def shown(self, name: str, style: str, factor: float = 1.0) -> str:
        """Return a value, or the least and the largest of all rows."""
        return cell([factor * row[name] for row in self.rows], style)

    def claim(self, claim: str, *figures: str) -> Row:
        """Return the row of a claim."""
        days = sorted({row["date"] for row in self.rows})
        return {
            "claim": claim,
            "figure": "; ".join(figures),
            "section": self.section,
            "command": self.command,
            "changes": self.changes,
            "date": days[0] if len(days) == 1 else days,
            "machine": self.rows[0]["machine"],
        }


def shown() -> str:
    """Return all claims as a table."""
    cautions = [on_claims(one) for one in (NOISE, KERNELS, PRODUCTS, HALF_PRECISION)]
    rows = [
        *of_searches(),
        *of_encoders(),
        *of_trust(),
        *of_motions(),
        *of_conformations(),
    ]
    return table(rows, COLUMNS, cautions)


def on_claims(caution: Caution) -> Caution:
    """Return a caution for the claims that name its mark."""
    return caution.of(lambda row: caution.mark in row["changes"])


def of_searches() -> Iterable[Row]:
    """Yield what is claimed of runs from nothing."""
    alone = Source.of("cryoposenet_sets", 1, "b", "--sets F").where(set="F")
    yield alone.claim(
        "set F (9,000 images of 128 x 128 pixels at -10 dB) from nothing: median error "
        "of the poses; resolution of the map, limit (Nyquist)",
        f"{alone.shown('geodesic_degrees_median', '.3f')} degrees",
        f"{alone.shown('truth_0143_angstrom', '.2f')}, "
        f"{alone.shown('limit_0143_angstrom', '.2f')} A",
    )
    yield alone.claim(
        "the same: wall time, five seeds (aim: 20 s)",
        f"{alone.shown('wall_seconds', '.0f')} s",
    )
    many = Source.of("scaling", 5, "b").where(images=100_000)
    yield many.claim(
        "100,000 images of 128 x 128 pixels at -10 dB with a CTF, from nothing: wall "
        "time; memory",
        f"{many.shown('wall_seconds', '.0f')} s",
        f"{many.shown('peak_anonymous_mb', '.1f', 1e-3)} GB",
    )
    low = Source.of("low_snr", 2, "b", "--seeds 1")
    error = "geodesic_degrees_median"
    yield low.claim(
        "10,000 images at -20 dB; at -25 dB, where the run fails: median error",
        f"{low.where(snr_db=-20.0).shown(error, '.2f')} degrees",
        f"{low.where(snr_db=-25.0).shown(error, '.0f')} degrees",
    )
    theirs = Source.of("relion_comparison", 7, "nkb").where(program="RELION")
    yield theirs.claim(
        "RELION 3.1.3's seconds to its best median error on set F, over cryoinfer's to "
        "the same (aim: 100): initial model; with auto-refine, not converged",
        *(
            f"{theirs.where(stage=stage).shown('ratio', '.0f')} "
            f"(to {theirs.where(stage=stage).shown('best_degrees', '.2f')} degrees)"
            for stage in ("initial model", "auto-refine")
        ),
    )


def of_encoders() -> Iterable[Row]:
    """Yield what is claimed of encoders' speed."""
    own = Source.of("encoder", 9, "bh", "--sets F").where(set="F", seed=0)
    yield own.claim(
        "an encoder of set F: training, after the search of 8,000 images",
        f"{own.shown('training_seconds', '.0f')} s",
    )
    yield own.claim(
        "its posteriors of particles that it has never seen: error of the view; rate",
        f"{own.shown('encoder_view_degrees', '.1f')} degrees",
        f"{own.shown('encoder_images_per_second', ',.0f')} a second",
    )
    yield own.claim(
        "the same with a climb: error of the pose; rate",
        f"{own.shown('climbed_degrees', '.2f')} degrees",
        f"{own.shown('climbed_images_per_second', ',.0f')} a second",
    )
    passes = Source.of("streaming", 14, "h").where(way="program", images=100_000)
    passes = passes.where(box=128)
    yield passes.claim(
        "`cryoinfer infer` of 100,000 images of set G: without climbs; with them",
        f"{passes.where(inference='encoder').shown('wall_seconds', '.0f')} s",
        f"{passes.where(inference='with a climb').shown('wall_seconds', '.0f')} s",
    )
    rows = break_evens(Source.of("streaming", 14).rows)
    worth = Source(rows, 14, "`streaming.py`", "bh").where(set="F")
    yield worth.claim(
        "particles from which on an encoder takes less time than a search of all, "
        "worked out: without climbs; with them",
        worth.where(inference="encoder").shown("break_even", ",.0f"),
        worth.where(inference="with a climb").shown("break_even", ",.0f"),
    )


def of_trust() -> Iterable[Row]:
    """Yield what is claimed of posteriors."""
    sets = Source.of("cryoposenet_sets", 1, "b")
    noisy = replace(sets, rows=[row for row in sets.rows if row["set"] != "A"])
    yield noisy.claim(
        "90 % sets of searches that hold the pose, sets with noise (B to G)",
        noisy.shown("coverage_pose_90", ".1%"),
    )
    views = Source.of("harder_sets", 3, "b").where(set="preferred views")
    yield views.claim(
        "the same where views are preferred: too few",
        views.shown("coverage_pose_90", ".1%"),
    )
    climbs = Source.of("calibration", 10, "h", "--sets F").where(set="F")
    climbs = climbs.where(posterior="semi-amortized")
    yield climbs.claim(
        "90 % sets of climbs, set F: simulated images; fresh particles",
        climbs.shown("simulated_pose_90%", ".1%"),
        climbs.shown("real_pose_90%", ".1%"),
    )
    two = Source.of("two_modes", 10, "h", "--steps 2500").where(missing=12)
    yield two.claim(
        "95 % sets of a nearly symmetric particle at -13 dB: climbs, too few; sampled",
        *(
            two.where(posterior=one).shown("simulated_pose_95%", ".1%")
            for one in ("semi-amortized", "sampled")
        ),
    )
    foreign = Source.of("out_of_distribution", 11, "h").where(inference="encoder")
    yield foreign.claim(
        "flagged as not of the map: its own particles; noise; another state; junk",
        *(
            foreign.shown(f"flagged_{kind}", ".1%")
            for kind in ("held_back", "noise", "closed", "junk")
        ),
    )
    wrong = Source.of("defocus", 13, "b").where(inferred="by the search")
    yield wrong.claim(
        "defoci given wrong by up to 2,000 A: rms error left; Cramer-Rao bound",
        f"{wrong.shown('defocus_rms_angstrom', '.1f')} A",
        f"{wrong.shown('bound_rms_angstrom', '.1f')} A",
    )


def of_motions() -> Iterable[Row]:
    """Yield what is claimed of motions."""
    moving = Source.of("dynamics", 20, "nkb").where(poses="searched")
    yield moving.claim(
        "three modes, 10,000 images at -10 dB, poses unknown: alpha carbons off by; "
        "particles lost; wall time on one core",
        f"{moving.shown('rmsd_angstrom', '.2f')} A",
        moving.shown("lost", ".1%"),
        f"{moving.shown('seconds', ',.0f')} s",
    )
    models = Source.of("wrong_model", 21, "", "--other lysozyme.pdb")
    yield models.claim(
        "signal that a model leaves: the right one; without its LID; another protein",
        *(
            models.where(model=one).shown("unexplained", ".0%")
            for one in ("itself", "without its LID", "another protein")
        ),
    )
    options = "--start closed --modes 3 --learn 10 --amplitude 3"
    path = Source.of("real_motion", 22, "nkb", options).where(start="closed")
    yield path.claim(
        "closed to open, learned from the closed structure: alpha carbons off by; the "
        "least that its modes allow; rank correlation of nearest frames (aim: 0.98)",
        f"{path.shown('rmsd_angstrom', '.1f')} A",
        f"{path.shown('floor_angstrom', '.1f')} A",
        path.shown("rank_frame", ".3f"),
    )
    yield path.claim(
        "the same: share found nearer to the open end; true share; 90 % sets that hold "
        "simulated truths, too few",
        path.shown("open_share", ".1%"),
        path.shown("true_open_share", ".1%"),
        path.shown("trial_90%", ".1%"),
    )


def of_conformations() -> Iterable[Row]:
    """Yield what is claimed of conformations without a model."""
    states = Source.of("heterogeneity", 24, "", "--images 50000 --seeds 5").where(
        images=50_000, method="search"
    )
    yield states.claim(
        "two states, 50,000 images of 64 x 64 pixels at -10 dB, poses unknown: wall "
        "time; median error of the view in each; on the wrong side (aims: 600 s, 1.5 "
        "degrees, 0.1 %)",
        f"{states.shown('seconds', '.0f')} s",
        f"{states.shown('view_first', '.2f')} and "
        f"{states.shown('view_second', '.2f')} degrees",
        states.shown("confusion", ".2%"),
    )
    yield states.claim(
        "10,000 others, searched in the maps of that run: wall time; view; on the "
        "wrong side",
        f"{states.shown('unseen_seconds', '.0f')} s",
        f"{states.shown('unseen_view_first', '.2f')} and "
        f"{states.shown('unseen_view_second', '.2f')} degrees",
        states.shown("unseen_confusion", ".2%"),
    )
    way = Source.of("continuous", 27)
    yield way.claim(
        "a continuous motion, 10,000 images at -10 dB, poses unknown: rank correlation "
        "of z (aim: 0.98); FSC area of maps along it; at true poses and places",
        way.shown("rank", ".3f"),
        way.shown("area", ".3f"),
        way.shown("oracle_area", ".3f"),
    )
