"""Reading images and datasets, checking them, and feeding them to training."""
