"""How good detections are: COCO's and Pascal VOC's numbers, of a detector or of files with its results."""
