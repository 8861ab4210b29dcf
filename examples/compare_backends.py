"""The same network on every backend that can run here: how fast, how exact, and whether they agree.

Run: python examples/compare_backends.py
"""

import numpy as np

import gpubp

data = gpubp.load_data("mnist-sample")
X, y = data.train.inputs, data.train.targets
test = data.test.inputs, data.test.targets

networks = {}
for name, why_not in gpubp.available().items():
    if why_not:
        print(f"{name:6} cannot run here: {why_not.splitlines()[0]}")
        continue
    network = networks[name] = gpubp.Network([784, 64, 10], seed=0)
    history = gpubp.fit(network, X, y, epochs=5, backend=name, validation=test)
    seconds = min(history["seconds"])
    print(
        f"{name:6} {seconds * 1000:6.1f} ms an epoch, test accuracy {history['validation_accuracy'][-1]:.4f}, "
        f"{history.verification.summary()}"
    )

first, *others = networks
for other in others:
    layers = zip(networks[first].parameters, networks[other].parameters, strict=True)
    distance = max(np.abs(a - b).max() for pair, twin in layers for a, b in zip(pair, twin, strict=True))
    print(f"after 5 epochs no weight of {other} is farther than {distance:.1g} from that of {first}")
