"""``python -m bench.gpu``: whether gpubp is right on a GPU, and how fast, beside PyTorch and JAX."""
