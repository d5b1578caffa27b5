"""Structures that can be projected: atoms and voxel volumes."""
