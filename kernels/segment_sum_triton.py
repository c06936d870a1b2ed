"""Segment sum: rows that have the same number are added up, as the messages of a graph's edges are at its nodes.

    y_sd  = sum_{e: n_e = s} x_ed,    dx_ed = dy_sd at s = n_e

of rows x (E, D) and numbers n (E,), in any order, below S. A segment without rows is 0; a NaN makes its own segment
NaN and no other. `order_by_segment` sorts the numbers once, for all sums over them: `order` (E,) names the rows segment
after segment, those of one segment as they came, and `first` (S + 1,) says where each begins in it.

A program looks at several segments, whose first rows it adds up together, then their second ones, and so on, and reads
which rows come next while two of each are on their way. A segment of more than CHUNK rows (a padding node has all
padding edges, a frequent word all its occurrences) would keep it busy alone: its rows are added up in chunks of the
order by as many programs, and the sums of chunks by one more. All in float32, without atomics, always in the same
order, so that sums repeat to the last bit.

Bytes: x, order and first once, y once; of long segments, at most a 32nd more of x for sums of chunks, twice. The
gradient reads dy by numbers and writes dx once.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.choice import Choice
from timetrial.kernels.kernel import (
    ELEMENT_SIZES,
    Arguments,
    Case,
    Cost,
    Kernel,
    Launch,
    most_registers,
    power_of_two,
    shape_of,
    size_in_bytes,
    unsuitable,
    warps,
)

# Values that a program looks at together, and where it sums up, programs of a multiprocessor that find room at once; 0
# leaves it to the compiler.
SUM = Choice(
    kernel="segment_sum",
    launch="sum",
    passes="forward",
    options={4: ((2_048, 4), (1_024, 4), (4_096, 2)), 2: ((2_048, 0), (1_024, 0), (4_096, 0))},
)
TAKE = Choice(
    kernel="segment_sum",
    launch="take",
    passes="both",
    options=dict.fromkeys((4, 2), ((2_048,), (1_024,), (4_096,))),
)
WIDEST = 512  # columns of a tile of several segments
# Rows of a long segment that a program adds up. More would let fewer programs share a segment, and its neighbours wait
# longer for one that is just not long; fewer would write more sums of chunks, and more programs would find none to sum.
CHUNK = 64
CHUNK_COLUMNS = 128


def order_by_segment(segments_E: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """`order` (E,) and `first` (num_segments + 1,), int32 both, of numbers below num_segments; on their device."""
    sorted_E, order_E = torch.sort(segments_E, stable=True)
    numbers = torch.arange(num_segments + 1, dtype=segments_E.dtype, device=segments_E.device)
    return order_E.int(), torch.searchsorted(sorted_E, numbers, out_int32=True)


def reference(rows_ED: Tensor, segments_E: Tensor, order_E: Tensor, first: Tensor) -> Tensor:
    """Sums (S, D) in the dtype of the rows; float32 (or float64) in between."""
    del order_E
    wide_ED = rows_ED if rows_ED.dtype == torch.float64 else rows_ED.float()
    zeros_SD = wide_ED.new_zeros(len(first) - 1, rows_ED.shape[1])
    return zeros_SD.index_add(0, segments_E, wide_ED).to(rows_ED.dtype)


@triton.jit
def _rows(rows, row, column, width, is_there):
    inside = is_there[:, None] & (column < width)[None, :]
    return tl.load(rows + row.to(tl.int64)[:, None] * width + column[None, :], mask=inside, other=0.0)


@triton.jit
def _short(
    rows, order, first, out, tile, part, num_segments, width,
    CHUNK: tl.constexpr, SEGMENTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Some columns of some segments, but for the long ones. Of each, two rows are under way together."""
    segment = tile * SEGMENTS + tl.arange(0, SEGMENTS)
    column = part * BLOCK + tl.arange(0, BLOCK)
    begin = tl.load(first + segment, mask=segment < num_segments, other=0)
    length = tl.load(first + segment + 1, mask=segment < num_segments, other=0) - begin
    is_long = length > CHUNK
    length = tl.where(is_long, 0, length)
    total = tl.zeros((SEGMENTS, BLOCK), tl.float32)
    one = tl.load(order + begin, mask=length > 0, other=0)
    two = tl.load(order + begin + 1, mask=length > 1, other=0)
    for some in range(0, tl.max(length, 0), 2):
        value = _rows(rows, one, column, width, some < length)
        other = _rows(rows, two, column, width, some + 1 < length)
        # Which rows are next, while these are under way.
        one = tl.load(order + begin + some + 2, mask=some + 2 < length, other=0)
        two = tl.load(order + begin + some + 3, mask=some + 3 < length, other=0)
        total = total + value.to(tl.float32) + other.to(tl.float32)
    inside = ((segment < num_segments) & (is_long == 0))[:, None] & (column < width)[None, :]
    at = segment.to(tl.int64)[:, None] * width + column[None, :]
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _last_of_chunk(segments, order, first, chunk, num_rows, CHUNK: tl.constexpr):
    """The segment of a chunk's last row, where it begins and ends, and whether it is long."""
    last = tl.load(segments + tl.load(order + tl.minimum(chunk * CHUNK + CHUNK, num_rows) - 1))
    begin, end = tl.load(first + last), tl.load(first + last + 1)
    return last, begin, end, end - begin > CHUNK


@triton.jit
def _chunk(
    rows, segments, order, first, sums, chunk, part, num_rows, width, CHUNK: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Sums of a chunk's rows: of the long segment that it begins in, and of the one that begins in it."""
    here = tl.load(segments + tl.load(order + chunk * CHUNK))
    here_end = tl.load(first + here + 1)
    here_long = here_end - tl.load(first + here) > CHUNK
    last, last_begin, _, last_long = _last_of_chunk(segments, order, first, chunk, num_rows, CHUNK)
    new_long = last_long & (last != here)
    if here_long | new_long:
        place = chunk * CHUNK + tl.arange(0, CHUNK)
        column = part * BLOCK + tl.arange(0, BLOCK)
        is_here = here_long & (place < here_end)
        is_new = new_long & (place >= last_begin) & (place < num_rows)
        row = tl.load(order + place, mask=is_here | is_new, other=0).to(tl.int64)
        inside = (is_here | is_new)[:, None] & (column < width)[None, :]
        value = tl.load(rows + row[:, None] * width + column[None, :], mask=inside, other=0.0).to(tl.float32)
        to = sums + 2 * chunk.to(tl.int64) * width + column
        tl.store(to, tl.sum(tl.where(is_here[:, None], value, 0.0), 0), mask=here_long & (column < width))
        tl.store(
            to + width, tl.sum(tl.where(is_new[:, None], value, 0.0), 0), mask=new_long & (column < width)
        )


@triton.jit
def _short_and_chunks(
    rows, segments, order, first, sums, out, num_rows, num_segments, num_chunks, width,
    CHUNK: tl.constexpr, COLUMNS: tl.constexpr, SEGMENTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The chunks of long segments, which take longest, and all other segments."""
    program = tl.program_id(0)
    parts, blocks = tl.cdiv(width, COLUMNS), tl.cdiv(width, BLOCK)
    if program < num_chunks * parts:
        _chunk(
            rows,
            segments,
            order,
            first,
            sums,
            program // parts,
            program % parts,
            num_rows,
            width,
            CHUNK,
            COLUMNS,
        )
    else:
        program -= num_chunks * parts
        _short(
            rows, order, first, out, program // blocks, program % blocks, num_segments, width,
            CHUNK, SEGMENTS, BLOCK,
        )  # fmt: skip


@triton.jit
def _long(
    sums, segments, order, first, out, num_rows, width, CHUNK: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """The long segment that begins in a chunk, if there is one, from the sums of chunks."""
    chunk = tl.program_id(0)
    segment, begin, end, is_long = _last_of_chunk(segments, order, first, chunk, num_rows, CHUNK)
    if is_long & (begin >= chunk * CHUNK):
        column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        total = tl.zeros((CHUNK, BLOCK), tl.float32)
        for some in range(chunk, tl.cdiv(end, CHUNK), CHUNK):
            each = some + tl.arange(0, CHUNK)
            # Its first rows may follow those of another segment in their chunk.
            at = 2 * each + ((each == chunk) & (begin > chunk * CHUNK)).to(tl.int32)
            inside = (each * CHUNK < end)[:, None] & (column < width)[None, :]
            total += tl.load(
                sums + at.to(tl.int64)[:, None] * width + column[None, :], mask=inside, other=0.0
            )
        to = out + segment.to(tl.int64) * width + column
        tl.store(to, tl.sum(total, 0).to(out.dtype.element_ty), mask=column < width)


@triton.jit
def _take(rows, numbers, out, size, width, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(numbers + place, mask=place < size, other=0).to(tl.int64)
    inside = (place < size)[:, None] & (column < width)[None, :]
    value = tl.load(rows + row[:, None] * width + column[None, :], mask=inside, other=0.0)
    tl.store(out + place.to(tl.int64)[:, None] * width + column[None, :], value, mask=inside)


def _tile(width: int, values: int) -> tuple[int, int]:
    """Segments, or rows, and columns of what one program looks at together."""
    block = min(power_of_two(width), WIDEST)
    return max(values // block, 1), block


def _sum_how(width: int, element_size: int) -> dict[str, Any]:
    """How a program of `_short_and_chunks` runs."""
    values, together = SUM[element_size]
    segments, block = _tile(width, values)
    num_warps = warps(segments * block)
    return {
        "CHUNK": CHUNK, "COLUMNS": min(block, CHUNK_COLUMNS), "SEGMENTS": segments, "BLOCK": block,
        "num_warps": num_warps, "maxnreg": most_registers(together, num_warps) if together else None,
    }  # fmt: skip


@torch.library.custom_op("timetrial::segment_sum", mutates_args=())
def _fused(rows: Tensor, segments: Tensor, order: Tensor, first: Tensor) -> Tensor:
    (num_rows, width), num_segments = rows.shape, len(first) - 1
    out = torch.empty((num_segments, width), dtype=rows.dtype, device=rows.device)
    if not out.numel():
        return out
    how = _sum_how(width, rows.element_size())
    columns = how["COLUMNS"]
    chunks = triton.cdiv(num_rows, CHUNK) if num_rows > CHUNK else 0
    sums = torch.empty((chunks, 2, width), dtype=torch.float32, device=rows.device)
    parts = triton.cdiv(width, columns)
    short = triton.cdiv(num_segments, how["SEGMENTS"]) * triton.cdiv(width, how["BLOCK"])
    _short_and_chunks[(chunks * parts + short,)](
        rows, segments, order, first, sums, out, num_rows, num_segments, chunks, width, **how
    )
    if chunks:
        _long[(chunks, parts)](
            sums, segments, order, first, out, num_rows, width,
            CHUNK=CHUNK, BLOCK=columns, num_warps=warps(CHUNK * columns),
        )  # fmt: skip
    return out


@_fused.register_fake
def _(rows: Tensor, segments: Tensor, order: Tensor, first: Tensor) -> Tensor:
    return rows.new_empty(len(first) - 1, rows.shape[1])


@torch.library.custom_op("timetrial::take_rows", mutates_args=())
def take_rows(rows_SD: Tensor, numbers_E: Tensor) -> Tensor:
    """Rows (E, D) by their numbers below S, both contiguous; 16 bytes at a time, which `index_select` does not do."""
    width, size = rows_SD.shape[1], len(numbers_E)
    out = torch.empty((size, width), dtype=rows_SD.dtype, device=rows_SD.device)
    if out.numel():
        tile, block = _tile(width, *TAKE[rows_SD.element_size()])
        _take[(triton.cdiv(size, tile), triton.cdiv(width, block))](
            rows_SD, numbers_E, out, size, width, ROWS=tile, BLOCK=block, num_warps=warps(tile * block)
        )
    return out


@take_rows.register_fake
def _(rows_SD: Tensor, numbers_E: Tensor) -> Tensor:
    return rows_SD.new_empty(len(numbers_E), rows_SD.shape[1])


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _gradients(ctx: Any, above: Tensor) -> tuple[Tensor | None, ...]:
    (segments,) = ctx.saved_tensors
    # What is taken by `take_rows` has no derivative.
    taken = (
        above.index_select(0, segments)
        if torch.is_grad_enabled()
        else take_rows(above.contiguous(), segments)
    )
    return taken, None, None, None


_fused.register_autograd(_gradients, setup_context=_keep)


def fused(rows_ED: Tensor, segments_E: Tensor, order_E: Tensor, first: Tensor) -> Tensor:
    """As `reference`, of contiguous tensors."""
    sums_SD: Tensor = _fused(rows_ED, segments_E, order_E, first)
    return sums_SD


def why_not(rows_ED: Tensor, segments_E: Tensor, order_E: Tensor, first: Tensor) -> str | None:
    """Why the fused form does not apply, or None."""
    if rows_ED.ndim != 2 or not segments_E.shape == order_E.shape == rows_ED.shape[:1]:
        shapes = shape_of(rows_ED, segments_E, order_E)
        return f"rows, segments and order are {shapes}: they should be (E, D), (E,) and (E,)"
    return unsuitable(rows_ED, segments_E, order_E, first)


def graph_numbers(
    edges: int, nodes: int, padding: float, generator: torch.Generator, device: torch.device
) -> Tensor:
    """An edge's node (edges,) int32: near each other, but for a share of padding, all of the last node."""
    place = torch.arange(edges, device=device) * (nodes / max(edges * (1 - padding), 1))
    near = place + 13 * torch.randn(edges, generator=generator, device=device)
    return torch.where(place < nodes, near, nodes).long().clamp(0, nodes - 1).int()


def _case(
    name: str, rows: int, segments: int, width: int, *, padding: float = 0.0, scale: float = 1.0, **kind: Any
) -> Case:
    def make(generator: torch.Generator, dtype: torch.dtype, device: torch.device) -> Arguments:
        x = (scale * torch.randn((rows, width), generator=generator, device=device)).to(dtype)
        numbers = graph_numbers(rows, segments, padding, generator, device)
        return x.requires_grad_(), numbers, *order_by_segment(numbers, segments)

    return Case(name=name, make=make, **kind)


def forward_cost(rows: Tensor, segments: Tensor, order: Tensor, first: Tensor) -> Cost:
    """Rows, order, beginnings and sums."""
    sums = (len(first) - 1) * rows.shape[1] * rows.element_size()
    return Cost(bytes_moved=size_in_bytes(rows, order, first) + sums)


def backward_cost(rows: Tensor, segments: Tensor, order: Tensor, first: Tensor) -> Cost:
    """Gradients of the sums, the numbers, and gradients of the rows."""
    sums = (len(first) - 1) * rows.shape[1] * rows.element_size()
    return Cost(bytes_moved=size_in_bytes(rows, segments) + sums)


def _launches(element: str, width: int) -> tuple[Launch, ...]:
    size = ELEMENT_SIZES[element]
    summed = _sum_how(width, size)
    taken, taken_block = _tile(width, *TAKE[size])
    x, numbers = f"*{element}", {"segments": "*i32", "order": "*i32", "first": "*i32"}
    take = {"rows": x, "numbers": "*i32", "out": x, "size": "i32", "width": "i32"}
    both = {
        "rows": x, **numbers, "sums": "*fp32", "out": x,
        "num_rows": "i32", "num_segments": "i32", "num_chunks": "i32", "width": "i32",
    }  # fmt: skip
    long = {"sums": "*fp32", **numbers, "out": x, "num_rows": "i32", "width": "i32"}
    num_warps, registers = summed.pop("num_warps"), summed.pop("maxnreg")
    columns = summed["COLUMNS"]
    return tuple(
        Launch(
            function=function,
            signature=signature,
            constants=constants,
            num_warps=num_warps,
            most_registers=registers,
            divisible=tuple(n for n in signature if n != "size" and not n.startswith("num_")),
        )
        for function, signature, constants, num_warps, registers in (
            (_short_and_chunks, both, summed, num_warps, registers),
            (_take, take, {"ROWS": taken, "BLOCK": taken_block}, warps(taken * taken_block), None),
            (_long, long, {"CHUNK": CHUNK, "BLOCK": columns}, warps(CHUNK * columns), None),
        )
    )


KERNEL = Kernel(
    name="segment_sum",
    reference=reference,
    fused=fused,
    why_not=why_not,
    cases=(
        _case("plain", 9, 4, 3),
        _case("ragged, many empty", 61, 150, 33),
        _case("padding", 200, 30, 20, padding=0.6),
        _case("one segment", 3 * CHUNK + 5, 1, 17, scale=1e6),
        _case("two blocks of columns", 70, 3, WIDEST + 6, scale=1e-6),
        _case("no rows", 0, 5, 8),
        _case("moderate", 28_672, 13_313, 256, size="moderate"),
        _case("ogbg", 28_672, 13_313, 256, padding=0.02, size="large"),
        _case("ogbg evaluation", 1_835_008, 851_969, 256, padding=0.02, size="large"),
    ),
    forward_cost=forward_cost,
    backward_cost=backward_cost,
    launches=lambda: tuple(launch for element in ("fp32", "bf16") for launch in _launches(element, 256)),
    choices=(SUM, TAKE),
)
