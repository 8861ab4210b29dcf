"""gather: out[b, :] = source[order[b], :], and for bytes out[b, i] = source[order[b], i] / 255."""

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
def gather_bytes(source_si, order_b, out_bi):
    """Rows of uint8 scaled by 1/255, (S, n) to (B, n).

    The quotient is rounded correctly, so that its bits are those of the reference's table of 256; and it
    vectorises, which the look-up does not (11 against 40 ms for MNIST's 60,000 images).
    """
    number = out_bi.dtype.type
    for b in range(len(order_b)):
        row, out = source_si[order_b[b]], out_bi[b]
        for i in range(len(row)):
            out[i] = number(row[i]) / number(255)
