"""Detectors that judge every clip by itself, whatever stands before and behind it."""
