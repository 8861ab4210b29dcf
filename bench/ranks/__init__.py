"""``python -m bench.ranks``: one network on several ranks, measured on this machine, and a model of more of them."""
