"""Training: bags of both kinds in, a trained detector as a run folder out."""
