"""Training by chance, the same on every backend: random numbers as a function of what they are for, and dropout."""
