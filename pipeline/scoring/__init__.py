"""Scoring: trained detectors on disk, and a score for every frame, by named protocols; events."""
