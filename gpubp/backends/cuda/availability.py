"""Checks that CuPy and an NVIDIA GPU answer here, and advice if they do not; CuPy is imported when this is asked."""

from __future__ import annotations

import importlib
import importlib.util
from importlib import metadata
from typing import Any

_WHEELS = ("cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x")
_INSTALL = 'python -m pip install "gpubp[cuda13]" (or "gpubp[cuda12]", if nvidia-smi shows CUDA version 12)'


def why_unavailable() -> str | None:
    """None if CuPy and a GPU answer here, else why not and what to install."""
    wheels = _installed_wheels()
    if len(wheels) > 1:
        return (
            f"{' and '.join(wheels)} are installed together and overwrite each other; "
            f"try: python -m pip uninstall {' '.join(wheels)}, then {_INSTALL}"
        )
    if not wheels and importlib.util.find_spec("cupy") is None:
        return f"CuPy is not installed; with an NVIDIA GPU, try: {_INSTALL}"
    try:
        cuda = importlib.import_module("cupy").cuda  # a folder of that name has none
    except (Exception, SystemExit) as error:  # a broken install is a reason to report, not a traceback
        return f"CuPy is installed but cannot be imported ({in_one_line(error)}); reinstall it: {_INSTALL}"
    return _why_no_device(cuda) or _why_no_libraries(cuda)


def _installed_wheels() -> list[str]:
    return [name for name in _WHEELS if any(metadata.distributions(name=name))]


def _why_no_device(cupy_cuda: Any) -> str | None:
    """None if a device answers; asks the runtime for numbers only, since a Stream() that fails is noisy."""
    runtime = cupy_cuda.runtime
    try:
        driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    except Exception as error:
        return f"the NVIDIA driver does not answer ({in_one_line(error)})"
    if driver == 0:
        return "no NVIDIA driver is installed, or this machine or container cannot see it"
    if driver // 1000 < needed // 1000:
        return (
            f"the NVIDIA driver is for CUDA {version(driver)}, older than the CUDA {version(needed)} "
            f"of this CuPy: install a newer driver, or the CuPy for CUDA {driver // 1000}: {_INSTALL}"
        )
    try:
        count = runtime.getDeviceCount()
    except Exception as error:
        return f"no CUDA device can be used ({in_one_line(error)})"
    return None if count else "the NVIDIA driver finds no CUDA device"


def _why_no_libraries(cupy_cuda: Any) -> str | None:
    try:
        cupy_cuda.nvrtc.getVersion()
        _ = cupy_cuda.cublas.getVersion
    except Exception as error:
        return f"CuPy finds no NVRTC or cuBLAS ({in_one_line(error)}); install them: {_INSTALL}"
    return None


def in_one_line(error: BaseException) -> str:
    """The error's last line: CuPy's import errors end with the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" =")]
    return lines[-1] if lines else type(error).__name__


def version(number: int) -> str:
    """A version of CUDA in words: 12040 is 12.4."""
    return f"{number // 1000}.{number % 1000 // 10}"
