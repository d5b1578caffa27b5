"""Particles: their images and what the metadata say about them."""
