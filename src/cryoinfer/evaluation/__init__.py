"""Do estimates deserve trust? Maps, poses and stated uncertainties, judged.

Knows only records, tensors and posteriors, so that it can judge any program's output.
"""
