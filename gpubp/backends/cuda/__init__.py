"""The ``cupy`` backend: CUDA kernels, and whole epochs as one launch."""
