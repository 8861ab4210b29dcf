"""What measures gpubp and is not installed with it: CPU and GPU runs, scaling, micro-benchmarks, results."""
