"""Why deep networks of sigmoids learn slowly: how much of the error is left in each layer, by activation.

Run: python examples/vanishing_signal.py
"""

import numpy as np

import gpubp
from gpubp.data import check_split
from gpubp.functions import LOSSES
from gpubp.training.signals import layer_signals

data = gpubp.load_data("digits").train
depth = 8

for activation in ("sigmoid", "tanh", "relu"):
    network = gpubp.Network([64, *[32] * depth, 10], hidden=activation, seed=0)
    split = check_split(data.inputs, data.targets)
    samples = network.prepare(split, LOSSES["cross_entropy"]).samples
    signals = layer_signals(network, samples.take(np.arange(256)), LOSSES["cross_entropy"])
    print(f"\n{activation}: mean |δ| in each layer, of one batch, before any training")
    for layer, signal in enumerate(signals, start=1):
        bar = "#" * int(40 * signal.mean_delta / signals[-1].mean_delta + 0.5)
        print(f"  layer {layer}  {signal.mean_delta:9.2e}  {bar}")
