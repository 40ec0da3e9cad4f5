"""Detectors that learn from the pixels of normal videos alone, and judge frame by frame; see `.detector`."""
