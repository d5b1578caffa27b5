"""Loops that alternate inference and reconstruction."""
