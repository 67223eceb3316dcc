"""Multi-scale testing: an image seen at several sizes and mirrored, as one detector."""
