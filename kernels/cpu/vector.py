"""Vectors of 64 bytes as a Numba type: 16 floats or 8 doubles, the registers of AVX-512.

Where a machine's registers are narrower (AVX2, NEON), LLVM splits each into as many as it takes, with the same
result. Numba itself has no vector type, and LLVM's vectoriser does not find tiles of several rows and columns.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic, models, register_model

BYTES = 64


class Vector(types.Type):
    """64 bytes of one float type."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        element = manager.lookup(kind.dtype).get_value_type()
        super().__init__(manager, kind, ir.VectorType(element, BYTES * 8 // kind.dtype.bitwidth))


def _check_layout(array) -> None:
    """Vectors are neighbours in memory only in rows of C order; anything else must not compile."""
    if array.layout != "C":
        raise TypingError(f"product takes arrays in C order, not {array}")


def _address(context, builder, array_type, array, indices):
    """Pointer to array[indices], for indices that are known to be in range."""
    view = context.make_array(array_type)(context, builder, array)
    shape = cgutils.unpack_tuple(builder, view.shape, array_type.ndim)
    strides = cgutils.unpack_tuple(builder, view.strides, array_type.ndim)
    return cgutils.get_item_pointer2(
        context, builder, view.data, shape, strides, array_type.layout, indices, wraparound=False
    )


@intrinsic
def load(typing_context, array, i, j):
    """The vector at array[i, j:j + lanes], aligned as elements are."""
    _check_layout(array)
    vector = Vector(array.dtype)

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1:])
        value_type = context.get_value_type(vector)
        value = builder.load(builder.bitcast(address, value_type.as_pointer()), typ=value_type)
        value.align = array.dtype.bitwidth // 8
        return value

    return vector(array, types.uintp, types.uintp), generate


@intrinsic
def store(typing_context, array, i, j, value):
    """array[i, j:j + lanes] = value."""
    _check_layout(array)

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], arguments[0], arguments[1:3])
        value_type = context.get_value_type(signature.args[3])
        stored = builder.store(arguments[3], builder.bitcast(address, value_type.as_pointer()))
        stored.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.uintp, types.uintp, value), generate


@intrinsic
def spread(typing_context, scalar):
    """A vector with ``scalar`` in every lane."""
    vector = Vector(scalar)

    def generate(context, builder, signature, arguments):
        value_type = context.get_value_type(vector)
        undefined = ir.Constant(value_type, ir.Undefined)
        index = ir.IntType(32)
        first = builder.insert_element(undefined, arguments[0], ir.Constant(index, 0))
        lanes = ir.Constant(ir.VectorType(index, value_type.count), [0] * value_type.count)
        return builder.shuffle_vector(first, undefined, lanes)

    return vector(scalar), generate


@intrinsic
def multiply_add(typing_context, a, b, c):
    """a·b + c in every lane, rounded once."""

    def generate(context, builder, signature, arguments):
        value_type = context.get_value_type(a)
        name = f"llvm.fma.v{value_type.count}f{a.dtype.bitwidth}"
        signature_type = ir.FunctionType(value_type, [value_type] * 3)
        return builder.call(cgutils.get_or_insert_function(builder.module, signature_type, name), arguments)

    return a(a, b, c), generate
