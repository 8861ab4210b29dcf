"""``python -m gpubp`` is the same as ``gpubp``."""

from gpubp.cli import main

main()
