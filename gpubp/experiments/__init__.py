"""Recipes, running them, and the folder that a run leaves."""
