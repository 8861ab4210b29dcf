"""One mini-batch through backpropagation, number by number: what happens, and the words for it."""
