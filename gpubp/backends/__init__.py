"""The choice of a backend: ``get("auto" | "numpy" | "numba" | "cupy")``; imports of each are its own module's."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from gpubp.backends.backend import Backend, HostBackend
from gpubp.backends.work import Work
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
    check = getattr(_module(name), "why_unavailable", None)
    return check() if check else None


def available() -> dict[str, str | None]:
    """For each backend None if it can run here, else the reason why it cannot."""
    return {name: why_unavailable(name) for name in _BACKENDS}


@dataclass(frozen=True)
class Wanted:
    """A backend that is still to be chosen, by the work that there is: :func:`get` makes it."""

    name: str = "auto"
    threads: int | None = None
    plan: str = "auto"
    precision: str = "float32"


def choose(
    name: str, work: Work | None = None, before: str | None = None, plan: str = "auto"
) -> tuple[str, str]:
    """The backend that ``name`` means here, and why.

    "auto" takes cupy if a device answers; else, of numba and numpy, which ends first by the count of ``work``, where
    kernels that are compiled already cost nothing to compile; without work, numba. A run that ``before`` began is ended
    by it, so that it goes on bitwise. Only those that have ``plan`` are taken.

    Raises:
        UsageError: there is no backend of that name.
        BackendUnavailable: the backend named cannot run here.
    """
    if name != "auto":
        reason = why_unavailable(name)
        if reason:
            raise BackendUnavailable(f"backend {name!r} cannot run here: {reason}")
        return name, "named"
    if before is not None and why_unavailable(before) is None:
        return before, "it trained the epochs before"
    reasons: dict[str, str] = {}
    for candidate in _AUTO_ORDER:
        if candidate == "numba" and plan == "auto" and work is not None and (why := _numpy_ends_first(work)):
            return "numpy", why
        reason = why_unavailable(candidate)
        if reason is None and plan not in ("auto", *_class(candidate).plans):
            reason = f"it has no {plan} plan"
        if reason is None and plan != "auto":
            return candidate, f"the first that can run here and has the {plan} plan"
        if reason is None:
            passed_over = f"{' and '.join(reasons)} cannot run here: gpubp doctor says why"
            return candidate, passed_over if reasons else "a CUDA device answers"
        reasons[candidate] = reason
    raise BackendUnavailable("no backend can run here: " + "; ".join(map(": ".join, reasons.items())))


def _numpy_ends_first(work: Work) -> str | None:
    """Why NumPy's plan ends this work before Numba's does, by count; None if it does not."""
    compiled = _module("numba").is_compiled(work.dtype, by_chance=work.drawn + work.deformed > 0)
    numpy, numba = work.seconds_of_numpy(), work.seconds_of_numba(compiled=compiled)
    if numpy > numba:
        return None
    first = (
        "load its compiled kernels" if compiled else "compile its kernels, as gpubp warmup does once for all"
    )
    return f"{_about(numpy)} of work by count; numba would first {first}"


def _about(seconds: float) -> str:
    return f"about {seconds:.1g} s"


def _module(name: str) -> Any:
    return import_module(lookup(_BACKENDS, name, "backend")[0])


def _class(name: str) -> type[Backend]:
    return getattr(_module(name), _BACKENDS[name][1])


def most_threads() -> int:
    """The threads that a backend on the processor may have here."""
    return _module("numba").most_threads()


def get(
    name: str | Wanted | Backend = "auto",
    threads: int | None = None,
    plan: str = "auto",
    precision: str = "float32",
    *,
    work: Work | None = None,
    before: str | None = None,
) -> Backend:
    """The backend of that name, or the one ``choose`` picks for "auto"; a backend is returned as it is.

    ``threads`` is how many of the processor's a backend that runs on it may use, by default all; ``plan`` the kind of
    plan that it makes, and ``precision`` how it computes products of float32 matrices. ``work`` and ``before`` are for
    :func:`choose`.

    Raises:
        UsageError: there is no backend of that name, or it cannot have that many threads, or has no such plan
            or precision.
        BackendUnavailable: the backend named cannot run here.
    """
    if not isinstance(name, str):
        if threads is not None or plan != "auto" or precision != "float32":
            raise UsageError(
                "a ready backend already has its threads, plan and precision: give a name instead, or make it with them"
            )
        if isinstance(name, Backend):
            return name
        return get(name.name, name.threads, name.plan, name.precision, work=work, before=before)
    name, why = choose(name, work, before, plan)
    kind = _class(name)
    settings = {} if threads is None else {"threads": threads}
    if settings and not issubclass(kind, HostBackend):
        raise UsageError(f"threads are for the CPU; backend {name!r} runs elsewhere: choose numba or numpy")
    backend: Backend = kind(plan=plan, precision=precision, **settings)
    backend.why = why
    return backend
