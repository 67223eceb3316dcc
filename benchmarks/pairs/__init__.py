"""Paired experiments: the parts of `benchmarks/paired.py`."""
