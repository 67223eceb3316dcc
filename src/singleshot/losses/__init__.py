"""Loss terms. Each is a small frozen dataclass that returns a sum; the criterion divides it."""

CLASSIFICATION_LOSSES = {
    "FocalLoss": "singleshot.losses.focal",
    "BalancedCrossEntropy": "singleshot.losses.sigmoid",
    "FocalStarLoss": "singleshot.losses.focal",
    "HingeLoss": "singleshot.losses.sigmoid",
    "OHEMLoss": "singleshot.losses.ohem",
    "SoftmaxLoss": "singleshot.losses.classification",
    "QualityFocalLoss": "singleshot.losses.quality_focal",
    "VarifocalLoss": "singleshot.losses.varifocal",
}
"""The classification losses that files, recipes and the command line may name, and the module of each."""
