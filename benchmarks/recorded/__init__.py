"""Single training runs that stand in docs/results.md: their plan, how they are made, their lines and tables."""
