"""``python -m bench.many``."""

import sys

from bench.many.command import main

sys.exit(main())
