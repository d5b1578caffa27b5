"""The report of a run: figures and one self-contained page."""

from cryoinfer.report.classes import ClassesContent, render_class_report
from cryoinfer.report.content import ReportContent
from cryoinfer.report.dynamics import DynamicsContent, render_dynamics_report
from cryoinfer.report.heterogeneity import (
    HeterogeneityContent,
    render_heterogeneity_report,
)
from cryoinfer.report.html import render_report
from cryoinfer.report.training import TrainingContent, render_training_report

__all__ = [
    "ClassesContent",
    "DynamicsContent",
    "HeterogeneityContent",
    "ReportContent",
    "TrainingContent",
    "render_class_report",
    "render_dynamics_report",
    "render_heterogeneity_report",
    "render_report",
    "render_training_report",
]
