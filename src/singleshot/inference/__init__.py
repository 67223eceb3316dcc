"""Runs a trained detector on images: from files to detections, drawings and result files."""
