"""Vectors: as many numbers as one register of this machine holds, and code that is emitted in terms of them.

Numba has no vector type, and LLVM's own vectoriser finds neither tiles of several rows and columns nor chains of
sums. So the innermost loops are Python functions that write LLVM's instructions, marked :func:`emitted`; kernels
call them like any other function. Inside, ``emit`` offers loads, stores and loops, and a :class:`Lanes` is a vector
to calculate with.

A ``memory`` is a one-dimensional array in C order, and offsets into it count elements. Nothing here checks bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partialmethod

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError

from gpubp.kernels.cpu.compile import Result, register
from gpubp.kernels.cpu.machine import BYTES, LINE

BIT, INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
CONTRACT = ("contract",)  # a product and its sum may be one rounding; nothing else may change


def index(value: int) -> ir.Constant:
    """A whole number that is known when the kernel is compiled."""
    return ir.Constant(INT64, value)


class Emit:
    """Writes instructions at one place of one function, for one float type."""

    def __init__(self, builder: ir.IRBuilder, element: ir.Type) -> None:
        self.builder, self.element = builder, element
        self.bits = 64 if isinstance(element, ir.DoubleType) else 32
        self.lanes = BYTES * 8 // self.bits
        self.vector = ir.VectorType(element, self.lanes)
        self.add, self.multiply = builder.add, builder.mul  # of whole numbers

    def load(self, base, offset):
        """base[offset]."""
        return self.builder.load(self.builder.gep(base, [offset]))

    def _address(self, kind: ir.Type, base, offset):
        return self.builder.bitcast(self.builder.gep(base, [offset]), kind.as_pointer())

    def load_as(self, kind: ir.Type, base, offset, align: int = 1):
        """The ``kind`` that begins at base[offset], by default at any byte."""
        value = self.builder.load(self._address(kind, base, offset))
        value.align = align
        return value

    def store_as(self, value, base, offset, align: int = 1) -> None:
        """Write a value of any kind where :meth:`load_as` reads it."""
        self.builder.store(value, self._address(value.type, base, offset)).align = align

    def load_lanes(self, base, offset) -> Lanes:
        """base[offset : offset + lanes], aligned as its elements are."""
        return Lanes(self, self.load_as(self.vector, base, offset, self.bits // 8))

    def store_lanes(self, lanes: Lanes, base, offset) -> None:
        self.store_as(lanes.value, base, offset, self.bits // 8)

    def constant(self, number: float) -> Lanes:
        return Lanes(self, ir.Constant(self.vector, [float(number)] * self.lanes))

    def spread(self, scalar) -> Lanes:
        """``scalar`` in every lane."""
        return Lanes(self, self._spread(scalar, self.vector))

    def _spread(self, scalar, vector: ir.VectorType):
        undefined = ir.Constant(vector, ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
        lanes = ir.Constant(ir.VectorType(INT32, vector.count), [0] * vector.count)
        return self.builder.shuffle_vector(first, undefined, lanes)

    def first_lanes(self, count):
        """The mask of the first ``count`` lanes; all, if there are no more."""
        numbers = ir.Constant(ir.VectorType(INT64, self.lanes), list(range(self.lanes)))
        return self.builder.icmp_signed("<", numbers, self._spread(count, numbers.type))

    def count(self, mask):
        """Count the lanes of the mask."""
        bits = self.builder.bitcast(mask, ir.IntType(self.lanes))
        return self.builder.zext(self.builder.ctpop(bits), INT64)

    def call(self, name: str, *arguments: Lanes) -> Lanes:
        """LLVM's intrinsic function of this name on vectors."""
        kind = ir.FunctionType(self.vector, [self.vector] * len(arguments))
        name = f"llvm.{name}.v{self.lanes}f{self.bits}"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return Lanes(self, self.builder.call(function, [lanes.value for lanes in arguments]))

    def loop(self, first, stop, step, carried: Sequence, body: Callable[..., Sequence | None]) -> list:
        """for i in range(first, stop, step): carried = body(i, *carried). Returns what is carried at the end.

        Bounds are 64-bit numbers, ``step`` one of Python's or of those; carried are numbers or :class:`Lanes`. Where
        nothing is carried, the body returns None.
        """
        builder = self.builder
        step = index(step) if isinstance(step, int) else step

        def counted(i, *carried):
            results = body(i, *carried)
            return builder.add(i, step), results

        return self._while(first, lambda i: builder.icmp_signed("<", i, stop), carried, counted)

    def _while(self, first, condition: Callable, carried: Sequence, body: Callable) -> list:
        """While condition(counter): counter, carried = body(counter, *carried). Returns what is carried at the end."""
        builder = self.builder
        wrap = [isinstance(value, Lanes) for value in carried]

        def raw(values):
            return [value.value if isinstance(value, Lanes) else value for value in values]

        def wrapped(values):
            return [Lanes(self, value) if w else value for w, value in zip(wrap, values, strict=True)]

        before, starts = builder.basic_block, raw(carried)
        inside, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
        builder.cbranch(condition(first), inside, after)
        builder.position_at_end(inside)
        counter = builder.phi(INT64)
        counter.add_incoming(first, before)
        held = [builder.phi(value.type) for value in starts]
        following, results = body(counter, *wrapped(held))
        ends = raw(results or ())
        last = builder.basic_block
        counter.add_incoming(following, last)
        for phi, start, end in zip(held, starts, ends, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(end, last)
        builder.cbranch(condition(following), inside, after)
        builder.position_at_end(after)
        final = []
        for start, end in zip(starts, ends, strict=True):
            phi = builder.phi(end.type)
            phi.add_incoming(start, before)
            phi.add_incoming(end, last)
            final.append(phi)
        return wrapped(final)

    def each_bit(self, mask, carried: Sequence, body: Callable[..., Sequence | None]) -> list:
        """For each bit b that is set in ``mask``, from the lowest on: carried = body(b, *carried)."""
        builder, none = self.builder, index(0)

        def lowest(rest, *carried):
            bit = builder.cttz(rest, ir.Constant(BIT, 1))
            return builder.and_(rest, builder.sub(rest, index(1))), body(bit, *carried)

        return self._while(mask, lambda rest: builder.icmp_unsigned("!=", rest, none), carried, lowest)

    def run(self, function: Callable, *values) -> None:
        """Call another emitted function, which has no result; it is compiled once, however often it is called."""
        separate = _separate(self.builder.module, function, self.element, ir.VoidType(), values)
        self.builder.call(separate, values)

    def choose(self, value, cases: dict[int, Callable[[], None]]) -> None:
        """Emit all ``cases`` and choose among them by ``value`` when running; the last stands for all that is left."""
        (number, case), *others = cases.items()
        if not others:
            case()
            return
        with self.builder.if_else(self.builder.icmp_signed("==", value, index(number))) as (then, otherwise):
            with then:
                case()
            with otherwise:
                self.choose(value, dict(others))


class Lanes:
    """A vector in a function that is being emitted: ``+ − * /``, comparisons (which give masks) and a few functions.

    Python numbers stand for vectors of them.
    """

    def __init__(self, emit: Emit, value) -> None:
        self.emit, self.value = emit, value

    def _lanes(self, other: Lanes | float) -> Lanes:
        return other if isinstance(other, Lanes) else self.emit.constant(other)

    def _left(self, instruction: str, other: Lanes | float) -> Lanes:
        operation = getattr(self.emit.builder, instruction)
        return Lanes(self.emit, operation(self.value, self._lanes(other).value, flags=CONTRACT))

    def _right(self, instruction: str, other: float) -> Lanes:
        return self._lanes(other)._left(instruction, self)

    __add__, __radd__ = partialmethod(_left, "fadd"), partialmethod(_right, "fadd")
    __sub__, __rsub__ = partialmethod(_left, "fsub"), partialmethod(_right, "fsub")
    __mul__, __rmul__ = partialmethod(_left, "fmul"), partialmethod(_right, "fmul")
    __truediv__, __rtruediv__ = partialmethod(_left, "fdiv"), partialmethod(_right, "fdiv")

    def __neg__(self) -> Lanes:
        return 0.0 - self

    def _mask(self, sign: str, other: Lanes | float):
        return self.emit.builder.fcmp_ordered(sign, self.value, self._lanes(other).value)

    __gt__, __lt__ = partialmethod(_mask, ">"), partialmethod(_mask, "<")
    equals = partialmethod(_mask, "==")  # not __eq__, which would take the hash

    def where(self, mask, other: Lanes | float) -> Lanes:
        """This in the lanes of the mask, ``other`` in the rest; a comparison with NaN is false."""
        return Lanes(self.emit, self.emit.builder.select(mask, self.value, self._lanes(other).value))

    def absolute(self) -> Lanes:
        return self.emit.call("fabs", self)

    def nearest(self) -> Lanes:
        """The nearest whole number."""
        return self.emit.call("rint", self)

    def square_root(self) -> Lanes:
        return self.emit.call("sqrt", self)

    def sum(self):
        """The sum of the lanes, in float64: halves are added, then quarters, and so on."""
        builder, value = self.emit.builder, self.value
        if self.emit.bits == 32:
            value = builder.fpext(value, ir.VectorType(ir.DoubleType(), self.emit.lanes))
        while value.type.count > 1:
            half = value.type.count // 2
            undefined = ir.Constant(value.type, ir.Undefined)
            kind = ir.VectorType(INT32, half)
            parts = (ir.Constant(kind, list(range(k, k + half))) for k in (0, half))
            low, high = (builder.shuffle_vector(value, undefined, part) for part in parts)
            value = builder.fadd(low, high)
        return builder.extract_element(value, ir.Constant(INT32, 0))

    def _whole(self) -> tuple[ir.VectorType, Callable[[int], ir.Constant]]:
        kind = ir.VectorType(ir.IntType(self.emit.bits), self.emit.lanes)
        return kind, lambda number: ir.Constant(kind, [number] * kind.count)

    def power_of_two(self) -> Lanes:
        """2^k, of lanes that hold whole numbers k whose power is a normal number."""
        builder, (kind, constant) = self.emit.builder, self._whole()
        bias, place = (1023, 52) if self.emit.bits == 64 else (127, 23)
        k = builder.add(builder.fptosi(self.value, kind), constant(bias))
        return Lanes(self.emit, builder.bitcast(builder.shl(k, constant(place)), self.emit.vector))

    def split(self) -> tuple[Lanes, Lanes]:
        """(m, k) with m 2^k = this and √½ ≤ m < √2, of lanes that hold positive normal numbers."""
        builder, (kind, constant) = self.emit.builder, self._whole()
        # Counted from the bits of √½, the exponent field steps where the mantissa reaches √2.
        place, root = (52, 0x3FE6A09E667F3BCD) if self.emit.bits == 64 else (23, 0x3F3504F3)
        above = builder.sub(builder.bitcast(self.value, kind), constant(root))
        k = builder.sitofp(builder.ashr(above, constant(place)), self.emit.vector)
        m = builder.add(builder.and_(above, constant((1 << place) - 1)), constant(root))
        return Lanes(self.emit, builder.bitcast(m, self.emit.vector)), Lanes(self.emit, k)


def multiply_add(a: Lanes, b: Lanes | float, c: Lanes | float) -> Lanes:
    """a·b + c, rounded once."""
    lanes = a._lanes
    return a.emit.call("fma", a, lanes(b), lanes(c))


def emitted(result: Result = types.void, *, inline: bool = False):
    """A function that writes its own instructions: ``function(emit, *arguments)`` is called in kernels without emit.

    Arrays come as the address of their first element, and the first of floats decides what ``emit`` is for. It is a
    function of its own in LLVM too, unless ``inline``.
    """

    def decorate(function):
        def lower(context, builder, signature, arguments):
            values, elements = [], []
            for kind, value in zip(signature.args, arguments, strict=True):
                if isinstance(kind, types.Array):
                    if kind.ndim != 1 or kind.layout != "C":
                        raise TypingError(
                            f"{function.__name__} takes arrays of one dimension in C order, not {kind}"
                        )
                    value = context.make_array(kind)(context, builder, value).data
                    kind = kind.dtype
                values.append(value)
                if isinstance(kind, types.Float):
                    elements.append(context.get_value_type(kind))
            element = elements[0] if elements else ir.FloatType()
            if inline:
                answer = function(Emit(builder, element), *values)
            else:
                kind = context.get_value_type(signature.return_type)
                answer = builder.call(_separate(builder.module, function, element, kind, values), values)
            return context.get_dummy_value() if signature.return_type == types.void else answer

        register(function, result, lower)
        return function

    return decorate


def _separate(module, function: Callable, element, result, values) -> ir.Function:
    """``function`` as a function of this module, shared with all others that it is linked with."""
    name = ".".join(["gpubp", function.__name__, *(str(value.type) for value in values)])
    if name in module.globals:
        return module.globals[name]
    void = ir.VoidType()
    kind = ir.FunctionType(void if result == INT8.as_pointer() else result, [v.type for v in values])
    separate = ir.Function(module, kind, name)
    separate.linkage = "linkonce_odr"
    separate.attributes.add("noinline")
    builder = ir.IRBuilder(separate.append_basic_block("entry"))
    answer = function(Emit(builder, element), *separate.args)
    if kind.return_type == void:
        builder.ret_void()
    else:
        builder.ret(answer)
    return separate


def _element(memory, *_) -> types.Type:
    return memory.dtype


@emitted(_element, inline=True)
def get(emit, memory, offset):
    """memory[offset], where Numba's own indexing would first ask whether the offset counts from the end."""
    return emit.load(memory, offset)


@emitted(inline=True)
def put(emit, memory, offset, value):
    """memory[offset] = value, for an offset that counts from the start."""
    kind = memory.type.pointee
    if value.type != kind:  # whole numbers come as 64-bit ones
        value = emit.builder.trunc(value, kind)
    emit.builder.store(value, emit.builder.gep(memory, [offset]))


@emitted(types.intp, inline=True)
def get_short(emit, bytes_, offset):
    """The 16-bit number at ``offset`` of an array of bytes."""
    return emit.builder.zext(emit.load_as(INT16, bytes_, offset), INT64)


@emitted(inline=True)
def put_short(emit, bytes_, offset, value):
    """Write a 16-bit number at ``offset`` of an array of bytes."""
    emit.store_as(emit.builder.trunc(value, INT16), bytes_, offset)


@emitted(inline=True)
def put_value(emit, bytes_, offset, value):
    """Write a number, or a byte, at ``offset`` of an array of bytes."""
    emit.store_as(value, bytes_, offset)


@emitted()
def prefetch_row(emit, array, first, stop):
    """Ask for the cache lines of array[first:stop], which are needed soon; they may lie outside."""
    builder, pointer = emit.builder, INT8.as_pointer()
    start, end = (builder.bitcast(builder.gep(array, [offset]), pointer) for offset in (first, stop))
    kind = ir.FunctionType(ir.VoidType(), [pointer, INT32, INT32, INT32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    count = builder.sub(builder.ptrtoint(end, INT64), builder.ptrtoint(start, INT64))
    how = [ir.Constant(INT32, x) for x in (0, 2, 1)]  # to read, into L2, data

    def one(i):
        builder.call(function, [builder.gep(start, [i]), *how])

    emit.loop(index(0), count, LINE, [], one)


@emitted()
def copy(emit, memory, source, source_row, target, target_row, rows, vectors):
    """target[r, :] = source[r, :], for rows of whole vectors."""
    _copied(emit, memory, source, source_row, target, target_row, rows, vectors, lambda lanes: lanes)


@emitted()
def scale(emit, memory, source, source_row, target, target_row, rows, vectors, factor):
    """target[r, :] = factor source[r, :], for rows of whole vectors."""
    by = emit.spread(factor)
    _copied(emit, memory, source, source_row, target, target_row, rows, vectors, lambda lanes: lanes * by)


def _copied(
    emit: Emit,
    memory,
    source,
    source_row,
    target,
    target_row,
    rows,
    vectors,
    change: Callable[[Lanes], Lanes],
) -> None:
    last = emit.multiply(vectors, index(emit.lanes))

    def row(r, source, target):
        def one(i):
            value = change(emit.load_lanes(memory, emit.add(source, i)))
            emit.store_lanes(value, memory, emit.add(target, i))

        emit.loop(index(0), last, emit.lanes, [], one)
        return [emit.add(source, source_row), emit.add(target, target_row)]

    emit.loop(index(0), rows, 1, [source, target], row)


@emitted()
def transpose(emit, memory, source, source_row, rows, zero, target, target_row, target_rows, spare):
    """target[j, i] = source[i, j] for a square of as many rows as a vector has lanes.

    Only the first ``rows`` rows of the source are read; for the others, the vector at ``zero``. Only the first
    ``target_rows`` rows of the target are written; the others, to the vector at ``spare``.
    """
    builder, lanes = emit.builder, emit.lanes
    values = []
    for i in range(lanes):
        place = emit.add(source, emit.multiply(source_row, index(i)))
        place = builder.select(builder.icmp_signed("<", index(i), rows), place, zero)
        values.append(emit.load_lanes(memory, place).value)
    # Interleaving rows i and i + lanes/2, as often as the number of lanes can be halved, transposes a square.
    half = lanes // 2
    numbers = ir.VectorType(INT32, lanes)
    low = ir.Constant(numbers, [x for k in range(half) for x in (k, k + lanes)])
    high = ir.Constant(numbers, [x for k in range(half, lanes) for x in (k, k + lanes)])
    for _ in range(half.bit_length()):
        pairs = [(values[i], values[i + half]) for i in range(half)]
        values = [builder.shuffle_vector(a, b, mask) for a, b in pairs for mask in (low, high)]
    for j, value in enumerate(values):
        place = emit.add(target, emit.multiply(target_row, index(j)))
        place = builder.select(builder.icmp_signed("<", index(j), target_rows), place, spare)
        emit.store_lanes(Lanes(emit, value), memory, place)
