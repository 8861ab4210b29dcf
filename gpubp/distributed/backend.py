"""The backend of each rank: the same kind on all, with what of the machine each is to use."""

from __future__ import annotations

from importlib import import_module

from gpubp import backends
from gpubp.backends import Wanted
from gpubp.backends.backend import Backend
from gpubp.backends.work import Work
from gpubp.distributed.mpi import threads_each
from gpubp.distributed.ranks import Ranks


def backend_for(
    ranks: Ranks,
    wanted: str | Wanted | Backend,
    parts: int | None = None,
    *,
    work: Work | None = None,
    before: str | None = None,
) -> Backend:
    """The backend that :func:`gpubp.backends.get` gives, on all ranks the one that rank 0 chooses.

    Where the threads are not given, ranks of one machine share its cores evenly, and its GPUs in turn. But NumPy's
    BLAS has one thread where there are ``parts``: it adds in another order on more. Raises what ``get`` does;
    BackendUnavailable also on a rank whose machine has not what rank 0's has.
    """
    if isinstance(wanted, Backend) or (ranks.size == 1 and parts is None):
        return backends.get(wanted, work=work, before=before)
    given = wanted if isinstance(wanted, Wanted) else Wanted(wanted)
    of_first = None
    if ranks.rank == 0:
        of_first = backends.choose(given.name, work, before, given.plan)
    name, why = ranks.decide(of_first)
    threads, share = given.threads, min(threads_each(ranks), backends.most_threads())
    if name == "cupy":
        _take_device(ranks.place)
    elif threads is None:
        threads = 1 if name == "numpy" and parts is not None else share
    chosen = backends.get(name, threads, given.plan, given.precision)
    chosen.why = why
    return chosen


def _take_device(place: int) -> None:
    """Make one of this machine's GPUs CuPy's present one; without any, the backend says why."""
    if backends.why_unavailable("cupy") is None:
        runtime = import_module("cupy").cuda.runtime
        runtime.setDevice(place % runtime.getDeviceCount())
