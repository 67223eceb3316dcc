"""Single training runs in docs/results.md: their plan, how they are made, their lines and tables."""
