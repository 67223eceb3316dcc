"""Exports detectors, and shows that the exported form finds the same objects."""
