"""The forward model: structures, contrast transfer, noise."""
