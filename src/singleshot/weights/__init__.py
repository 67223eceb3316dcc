"""Detectors in files: our own format, and files of other projects."""
