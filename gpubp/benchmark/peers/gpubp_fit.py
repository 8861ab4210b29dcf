"""gpubp as it is used: one ``gpubp.fit`` over all epochs, verifying as it goes."""

from __future__ import annotations

import queue
import threading
from typing import Any

import numpy as np

import gpubp
from gpubp.backends.cpu import backend as cpu  # noqa: F401  (importing Numba is part of importing the peer)
from gpubp.benchmark.data import Data
from gpubp.benchmark.nets import SEED, Net
from gpubp.benchmark.peers import Trainer
from gpubp.training.history import Epoch

FOREVER = 10**9  # epochs; the run ends with the process


class FitTrainer(Trainer):
    """fit runs in a thread of its own, and after every epoch its callback waits until the next is asked for.

    The first epoch's time has the preparation of the data, compilation and warm-up in it. The order is the one
    that fit draws from the seed, which is the one that all peers are given.
    """

    version = gpubp.__version__
    input_density = None  # fit does not say
    details = 'gpubp.fit(backend="numba", verify="epoch")'

    def __init__(self, net: Net, data: Data, parameters: list[np.ndarray]) -> None:
        self.network = net.network()
        self.network.parameters = list(zip(parameters[::2], parameters[1::2], strict=True))
        self.asked: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[Epoch | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._fit, args=(net, data), daemon=True).start()

    def _fit(self, net: Net, data: Data) -> None:
        self.asked.get()
        try:
            gpubp.fit(
                self.network, data.inputs, data.labels, loss=net.loss, optimizer=gpubp.SGD(net.lr),
                batch_size=net.batch, epochs=FOREVER, callbacks=[self._after_epoch], backend="numba",
                verify="epoch", seed=SEED,
            )  # fmt: skip
        except BaseException as error:
            self.done.put(error)

    def _after_epoch(self, epoch: Epoch, network: gpubp.Network) -> None:
        self.done.put(epoch)
        self.asked.get()

    def run_epoch(self, order: np.ndarray) -> float:
        self.asked.put(None)
        epoch = self.done.get()
        if isinstance(epoch, BaseException):
            raise epoch
        return epoch.loss

    def parameters(self) -> list[np.ndarray]:
        return [p for pair in self.network.parameters for p in pair]


def build(net: Net, data: Data, parameters: list[np.ndarray], options: dict[str, Any]) -> FitTrainer:
    """Threads come from NUMBA_NUM_THREADS."""
    return FitTrainer(net, data, parameters)
