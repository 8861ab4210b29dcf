"""``python -m bench.deformed``."""

import sys

from bench.deformed.command import main

sys.exit(main())
