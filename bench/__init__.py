"""Benchmarks of gpubp: against other libraries (bench.cpu, bench.gpu), over sizes (bench.scaling), by operation
(pytest).

They run from a source tree where gpubp is not installed, too.
"""

from pathlib import Path

import gpubp

gpubp.__path__.append(
    str(Path(__file__).resolve().parents[1])
)  # for gpubp.kernels, which an installation moves there
