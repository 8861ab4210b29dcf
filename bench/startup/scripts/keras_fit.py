"""784-128-10 in Keras, on JAX. Usage: keras_fit.py DATA BATCH SCHEDULE"""

import os
import sys

os.environ["KERAS_BACKEND"] = "jax"

import keras
from common import load

path, batch, schedule = sys.argv[1], int(sys.argv[2]), sys.argv[3]
x_train, y_train, x_test, y_test = load(path)

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.layers.Input((784,)),
        keras.layers.Dense(128, activation="relu", kernel_initializer="he_normal"),
        keras.layers.Dense(10),
    ]
)
rate = 0.1
if schedule == "cosine":
    rate = keras.optimizers.schedules.CosineDecay(0.1, 10 * -(-len(x_train) // batch))
model.compile(
    optimizer=keras.optimizers.SGD(rate, momentum=0.9),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(
    x_train, y_train, batch_size=batch, epochs=10, validation_data=(x_test, y_test), verbose=0
)
for epoch, accuracy in enumerate(history.history["val_accuracy"]):
    print(f"epoch {epoch + 1}: test accuracy {accuracy:.4f}")
