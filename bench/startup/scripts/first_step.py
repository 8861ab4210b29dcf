"""One training step of 784-128-10 on bytes. Usage: first_step.py BACKEND"""

import sys

import numpy as np

import gpubp

rng = np.random.default_rng(0)
x, y = rng.integers(0, 256, (128, 784), dtype=np.uint8), rng.integers(0, 10, 128)
net = gpubp.Network([784, 128, 10], hidden="relu", output="softmax", seed=0)
gpubp.fit(net, x, y, loss="cross_entropy", batch_size=128, epochs=1, verify="off", backend=sys.argv[1])
