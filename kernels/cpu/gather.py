"""gather: out[b, :] = source[order[b], :], and for bytes out[b, i] = table[source[order[b], i]]."""

from __future__ import annotations

from gpubp.kernels.cpu.compile import kernel


@kernel
def gather(source_si, order_b, out_bi):
    """Rows of floats, (S, n) to (B, n)."""
    for b in range(len(order_b)):
        row, out = source_si[order_b[b]], out_bi[b]
        for i in range(len(row)):
            out[i] = row[i]


@kernel
def gather_bytes(source_si, order_b, table, out_bi):
    """Rows of uint8 through a table of 256 floats, (S, n) to (B, n)."""
    for b in range(len(order_b)):
        row, out = source_si[order_b[b]], out_bi[b]
        for i in range(len(row)):
            out[i] = table[row[i]]
