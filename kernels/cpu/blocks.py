"""Arrays as operations have them, and the memory of whole vectors that rowwise.py and turned.py work on.

An operation's array ends where its numbers end, and reading or writing a vector beyond would be an error. So a few
numbers at a time go to memory with room for whole vectors, and back.
"""

from __future__ import annotations

import numpy as np

from gpubp.kernels.cpu.compile import part
from gpubp.kernels.cpu.rowwise import activate, pull_back
from gpubp.kernels.cpu.turned import SOFTMAX, pull_back_softmax, softmax
from gpubp.kernels.cpu.vector import BYTES, get, put

BLOCK = 1024  # numbers that are in work at a time


@part()
def move(source, place, target, to, count):
    """target[to : to + count] = source[place : place + count]."""
    for i in range(count):
        put(target, to + i, get(source, place + i))


@part()
def turn_rows(source, place, rows, n, memory, block):
    """Up to as many rows of n numbers as a vector has lanes become a block of n vectors."""
    lanes = BYTES // memory.itemsize
    for b in range(rows):
        for j in range(n):
            put(memory, block + j * lanes + b, get(source, place + b * n + j))


@part()
def turn_rows_back(memory, block, target, place, rows, n):
    """The rows of a block."""
    lanes = BYTES // memory.itemsize
    for b in range(rows):
        for j in range(n):
            put(target, place + b * n + j, get(memory, block + j * lanes + b))


@part()
def activate_rows(z, a, place, rows, n, activation):
    """a = σ(z) for rows of n numbers from ``place`` on; both may be one array."""
    lanes = BYTES // z.itemsize
    if activation == SOFTMAX:
        memory = np.zeros(n * lanes, z.dtype)
        for b in range(0, rows, lanes):
            some, at = min(lanes, rows - b), place + b * n
            turn_rows(z, at, some, n, memory, 0)
            softmax(memory, 0, n)
            turn_rows_back(memory, 0, a, at, some, n)
        return
    memory = np.zeros(BLOCK, z.dtype)
    for at in range(place, place + rows * n, BLOCK):
        count = min(BLOCK, place + rows * n - at)
        move(z, at, memory, 0, count)
        activate(memory, 0, 0, 1, (count + lanes - 1) // lanes, activation)
        move(memory, 0, a, at, count)


@part()
def pull_back_rows(delta, a, place, rows, n, activation):
    """∂C/∂a becomes ∂C/∂z for rows of n numbers from ``place`` on."""
    lanes = BYTES // a.itemsize
    if activation == SOFTMAX:
        memory = np.zeros(2 * n * lanes, a.dtype)
        for b in range(0, rows, lanes):
            some, at = min(lanes, rows - b), place + b * n
            turn_rows(delta, at, some, n, memory, 0)
            turn_rows(a, at, some, n, memory, n * lanes)
            pull_back_softmax(memory, 0, n * lanes, n)
            turn_rows_back(memory, 0, delta, at, some, n)
        return
    memory = np.zeros(2 * BLOCK, a.dtype)
    for at in range(place, place + rows * n, BLOCK):
        count = min(BLOCK, place + rows * n - at)
        move(delta, at, memory, 0, count)
        move(a, at, memory, BLOCK, count)
        pull_back(memory, 0, BLOCK, 0, 1, (count + lanes - 1) // lanes, activation)
        move(memory, 0, delta, at, count)
