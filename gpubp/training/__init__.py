"""Epochs over a backend's plan, and what is watched, verified and kept as they go."""
