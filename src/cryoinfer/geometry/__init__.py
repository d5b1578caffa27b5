"""Rotations, grids over them, and the point groups of symmetric particles."""
