"""``python -m bench.startup``: whole processes, from the command to the result, beside other libraries' scripts."""
