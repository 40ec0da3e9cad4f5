"""Detectors that look at frames: they learn from normal videos themselves, and every frame's error is kept."""
