"""``python -m bench.ranks``."""

import sys

from bench.ranks.command import main

sys.exit(main())
