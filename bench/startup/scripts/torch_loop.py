"""784-128-10 in PyTorch, a loop over tensors in memory. Usage: torch_loop.py DATA BATCH SCHEDULE"""

import sys

import torch
from common import learning_rates, load
from torch import nn

path, batch, schedule = sys.argv[1], int(sys.argv[2]), sys.argv[3]
x_train, y_train, x_test, y_test = map(torch.from_numpy, load(path))

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=True)
steps = -(-len(x_train) // batch)
rates = iter(learning_rates(schedule, 10 * steps).tolist())

for epoch in range(10):
    for chosen in torch.randperm(len(x_train)).split(batch):
        optimizer.param_groups[0]["lr"] = next(rates)
        loss = nn.functional.cross_entropy(model(x_train[chosen]), y_train[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (model(x_test).argmax(dim=1) == y_test).float().mean().item()
    print(f"epoch {epoch + 1}: test accuracy {accuracy:.4f}", flush=True)
