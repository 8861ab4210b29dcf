"""``python -m bench.startup``."""

import sys

from bench.startup.command import main

sys.exit(main())
