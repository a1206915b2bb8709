"""Metric maths over feature arrays: numpy, scipy and torch only, no images, no files, no networks."""
