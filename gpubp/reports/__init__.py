"""Pages: what a training run, a benchmark or an explanation looks like in a browser."""
