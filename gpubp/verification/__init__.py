"""Holding a backend to the reference: every number within a derived bound."""
