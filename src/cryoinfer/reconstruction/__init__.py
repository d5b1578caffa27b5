"""From particles with posteriors to maps: insertion, Wiener division, half-maps."""
