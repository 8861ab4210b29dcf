"""``python -m bench.many``: sixteen networks at once, alike and unlike, beside those who train them otherwise."""
