"""The forms that a section can be written in: one file for each."""
