"""Benchmarks of gpubp: against other libraries (bench.cpu, bench.gpu), over sizes (bench.scaling), by operation
(pytest).

In a source tree this is the package ``bench``, which runs where gpubp is not installed, too; an installation has it as
``gpubp.bench``, for ``gpubp bench``.
"""

from pathlib import Path

import gpubp

if __name__ == "bench":  # for gpubp.kernels, which an installation moves there
    gpubp.__path__.append(str(Path(__file__).resolve().parents[1]))
