"""Upkeep: what is wrong with a data set or a features folder before or after the work, and what of it nobody needs."""
