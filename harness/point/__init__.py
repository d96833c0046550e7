"""All that decides the number of a point, and nothing else."""
