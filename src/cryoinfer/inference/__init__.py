"""Posteriors over poses: exhaustive and nested search, local refinement."""
