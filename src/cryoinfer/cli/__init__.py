"""The command line: what a user asks for, put into the words of the floors below.

``app`` and ``options`` declare the commands and import nothing heavy, so that
``cryoinfer --help`` answers at once; the modules that do the work are imported by the
command that needs them.
"""
