"""The report of a run: figures and one self-contained page."""

from cryoinfer.report.content import Coverage, ReportContent, TruthComparison
from cryoinfer.report.html import render_report
from cryoinfer.report.training import TrainingContent, render_training_report

__all__ = [
    "Coverage",
    "ReportContent",
    "TrainingContent",
    "TruthComparison",
    "render_report",
    "render_training_report",
]
