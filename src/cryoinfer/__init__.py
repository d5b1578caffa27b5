"""Posteriors over what is unknown in cryo-EM particle images, and the maps."""

__version__ = "0.1.0"
