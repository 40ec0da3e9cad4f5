"""Evaluation: metrics with intervals and tests, calibrated thresholds, and what a run achieves on test videos."""
