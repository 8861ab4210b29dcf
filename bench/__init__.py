"""Benchmarks of gpubp: against other libraries (bench.cpu), over sizes (bench.scaling), by operation (pytest)."""
