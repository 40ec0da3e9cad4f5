"""Upkeep: whether all that lies in a features folder is whole, and what of it nobody needs."""
