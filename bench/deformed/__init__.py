"""``python -m bench.deformed``: training on images that are deformed anew in each step, beside PyTorch."""
