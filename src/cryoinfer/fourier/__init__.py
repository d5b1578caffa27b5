"""Transforms, the disc of coefficients in use, and slices of three-dimensional ones."""
