"""The only place that knows RELION's and cryoSPARC's names, units and signs.

``poses`` holds the mathematics, ``relion`` and ``cryosparc`` the two dialects, and
``table`` the neutral record that both are translated to.
"""
