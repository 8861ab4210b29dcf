"""The choice of a backend: ``get("auto" | "numpy" | "numba" | "cupy")``; imports of each are its own module's."""

from __future__ import annotations

from importlib import import_module

from gpubp.backends.backend import Backend, HostBackend
from gpubp.errors import BackendUnavailable, UsageError
from gpubp.functions import lookup

# name -> (module, class); the module offers why_unavailable(), and the class takes threads if it is a HostBackend.
_BACKENDS = {
    "numpy": ("gpubp.backends.numpy", "ReferenceBackend"),
    "numba": ("gpubp.backends.cpu.backend", "NumbaBackend"),
    "cupy": ("gpubp.backends.cuda.backend", "CupyBackend"),
}
_AUTO_ORDER = ("cupy", "numba", "numpy")


def names() -> tuple[str, ...]:
    """The backends there are, available or not."""
    return tuple(_BACKENDS)


def why_unavailable(name: str) -> str | None:
    """None if the backend can run here, else the reason and what to install."""
    module, _ = lookup(_BACKENDS, name, "backend")
    check = getattr(import_module(module), "why_unavailable", None)
    return check() if check else None


def available() -> dict[str, str | None]:
    """For each backend None if it can run here, else the reason why it cannot."""
    return {name: why_unavailable(name) for name in _BACKENDS}


def choose(name: str) -> tuple[str, str]:
    """The backend that ``name`` means here, and why: "auto" takes the first that can run of cupy, numba, numpy.

    Raises:
        UsageError: there is no backend of that name.
        BackendUnavailable: the backend named cannot run here.
    """
    if name != "auto":
        reason = why_unavailable(name)
        if reason:
            raise BackendUnavailable(f"backend {name!r} cannot run here: {reason}")
        return name, "named"
    reasons: dict[str, str] = {}
    for candidate in _AUTO_ORDER:
        reason = why_unavailable(candidate)
        if reason is None:
            passed_over = f"{' and '.join(reasons)} cannot run here: gpubp doctor says why"
            return candidate, passed_over if reasons else "a CUDA device answers"
        reasons[candidate] = reason
    raise BackendUnavailable("no backend can run here: " + "; ".join(map(": ".join, reasons.items())))


def get(
    name: str | Backend = "auto", threads: int | None = None, plan: str = "auto", precision: str = "float32"
) -> Backend:
    """The backend of that name, or the one ``choose`` picks for "auto"; a backend is returned as it is.

    ``threads`` is how many of the processor's a backend that runs on it may use, by default all; ``plan`` the kind of
    plan that it makes, and ``precision`` how it computes products of float32 matrices.

    Raises:
        UsageError: there is no backend of that name, or it cannot have that many threads, or has no such plan
            or precision.
        BackendUnavailable: the backend named cannot run here.
    """
    if isinstance(name, Backend):
        if threads is not None or plan != "auto" or precision != "float32":
            raise UsageError(
                "a ready backend already has its threads, plan and precision: give a name instead, or make it with them"
            )
        return name
    name, why = choose(name)
    module, cls = _BACKENDS[name]
    kind = getattr(import_module(module), cls)
    settings = {} if threads is None else {"threads": threads}
    if settings and not issubclass(kind, HostBackend):
        raise UsageError(f"threads are for the CPU; backend {name!r} runs elsewhere: choose numba or numpy")
    backend: Backend = kind(plan=plan, precision=precision, **settings)
    backend.why = why
    return backend
