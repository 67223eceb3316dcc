"""The speed that was aimed at, and how it is measured. `benchmarks/targets.py` runs it."""
