"""Loss terms: each is a small frozen dataclass that returns a sum; the criterion divides."""
