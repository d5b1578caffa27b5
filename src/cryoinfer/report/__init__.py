"""The report of a run: figures and one self-contained page."""

from cryoinfer.report.content import Coverage, ReportContent, TruthComparison
from cryoinfer.report.html import render_report

__all__ = ["Coverage", "ReportContent", "TruthComparison", "render_report"]
