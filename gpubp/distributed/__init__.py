"""One network trained by several processes, the ranks: each has a part of every mini-batch, all the same weights."""
