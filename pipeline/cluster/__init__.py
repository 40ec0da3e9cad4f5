"""Work spread over the nodes of a Ray cluster: whole videos, whole trainings."""
