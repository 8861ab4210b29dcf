"""The engine of ``gpubp bench``: peers in processes of their own, timed in turn, and their results compared."""
