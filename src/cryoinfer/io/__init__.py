"""Files: STAR and cryoSPARC tables, MRC stacks and maps, atomic models."""
