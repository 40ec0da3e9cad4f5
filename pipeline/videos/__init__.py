"""Videos: found, named, decoded in processes of their own, and cut into clips."""
