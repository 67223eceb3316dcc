"""How cost grows: what is measured, how, and how it is shown. `benchmarks/growth.py` runs it."""
