"""Saves and loads detectors: our own file format, and weights of other projects."""
