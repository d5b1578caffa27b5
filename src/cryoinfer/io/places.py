"""Places that there can be in a file; imports nothing, as pixel sizes do."""

FARTHEST_ANGSTROM = 1e5
"""From the origin: ten times what PDB files can write."""
