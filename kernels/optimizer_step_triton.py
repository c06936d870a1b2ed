"""The step of an optimizer over all tensors of a list in one launch; formulas in `optimizer_step_torch.py`, its twin.

A table on the device has, of each tensor, the addresses of parameter, gradient and moments; two lists say which block
of which tensor a program is to do. The lists are made once; addresses are sent anew when one has changed, as gradients
may, from pinned memory. Nothing waits for the device: the number of the step is counted there, bias corrections are
computed from it in float64, the learning rate and the norm to clip by are read there.

    launch 1, if gradients are clipped: the sum of squares of each block; torch adds the sums up
    launch 2, of one program: t + 1, r / (1 - b1^t), 1 / sqrt(1 - b2^t), and min(1, limit / (norm + 1e-6))
    launch 3: the step, gradients times that factor on the way; they are not written

A step is in place, so that it is no `Kernel`, which is a function of arguments to results.
Sums are in the same order each time. Bytes: parameter and moments read and written, the gradient read once, twice if
it is clipped; 28 a parameter for AdamW in float32.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from timetrial.kernels.kernel import Launch, warps
from timetrial.kernels.optimizer_step_torch import NUM_MOMENTS, Kind, Rule

# 8 values of each tensor a thread, of 4 warps; 253 million parameters are 247,000 programs.
BLOCK = 1_024
ELEMENTS = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}
# Places in the numbers of a step: learning rate, the same over 1 - b1^t, 1 / sqrt(1 - b2^t), factor of the gradient.
RATE, CORRECTED_RATE, ROOT, FACTOR = (tl.constexpr(place) for place in range(4))


@triton.jit
def _prepare(t, squares, numbers, log_beta1, log_beta2, limit, HAS_LIMIT: tl.constexpr):
    count = tl.load(t) + 1
    tl.store(t, count)
    steps = count.to(tl.float64)  # 1 - b^t in float32 would lose digits while t is small
    rate = tl.load(numbers + RATE).to(tl.float64)
    tl.store(numbers + CORRECTED_RATE, (rate / (1 - tl.exp(steps * log_beta1))).to(tl.float32))
    tl.store(numbers + ROOT, (1 / tl.sqrt(1 - tl.exp(steps * log_beta2))).to(tl.float32))
    factor = 1.0
    if HAS_LIMIT:
        ratio = limit / (tl.sqrt(tl.load(squares)) + 1e-6)
        factor = tl.where(ratio > 1, 1.0, ratio)  # what is not a number stays so
    tl.store(numbers + FACTOR, factor)


@triton.jit
def _place(sizes, owners, blocks, BLOCK: tl.constexpr):
    """The tensor that a program has a block of, where that begins, and how many elements are left from there."""
    owner = tl.load(owners + tl.program_id(0))
    first = tl.load(blocks + tl.program_id(0)).to(tl.int64) * BLOCK
    return owner, first, tl.load(sizes + owner) - first


@triton.jit
def _squares(
    table, sizes, owners, blocks, sums, num_tensors, ELEMENT: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    owner, first, left = _place(sizes, owners, blocks, BLOCK)
    at = tl.arange(0, BLOCK)
    address = tl.load(table + num_tensors + owner)
    if (left >= BLOCK) & (address % 16 == 0):
        aligned = tl.multiple_of(address.to(tl.pointer_type(ELEMENT)), 16)
        g = tl.load(aligned + first + at).to(tl.float32)
    else:
        g = tl.load(address.to(tl.pointer_type(ELEMENT)) + first + at, mask=at < left, other=0.0).to(
            tl.float32
        )
    tl.store(sums + tl.program_id(0), tl.sum(g * g, 0))


@triton.jit
def _update(
    parameter, gradient, first, second, at, inside, numbers, beta1, beta2, eps, decay, KIND: tl.constexpr
):  # fmt: skip
    rate = tl.load(numbers + RATE)
    w = tl.load(parameter + at, mask=inside).to(tl.float32)
    g = tl.load(gradient + at, mask=inside).to(tl.float32) * tl.load(numbers + FACTOR)
    m = tl.load(first + at, mask=inside)
    if KIND == "adamw" or KIND == "nadamw":
        v = tl.load(second + at, mask=inside)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        ahead = m
        if KIND == "nadamw":
            ahead = beta1 * m + (1 - beta1) * g
        slope = ahead / (tl.sqrt(v) * tl.load(numbers + ROOT) + eps)
        w = w * (1 - rate * decay) - tl.load(numbers + CORRECTED_RATE) * slope
        tl.store(second + at, v, mask=inside)
    elif KIND == "lion":
        ahead = beta1 * m + (1 - beta1) * g
        sign = tl.where(ahead > 0, 1.0, tl.where(ahead < 0, -1.0, ahead))
        w = w * (1 - rate * decay) - rate * sign
        m = beta2 * m + (1 - beta2) * g
    else:
        g += decay * w
        m = beta1 * m + g
        w -= rate * (g + beta1 * m if KIND == "nesterov" else m)
    tl.store(first + at, m, mask=inside)
    tl.store(parameter + at, w.to(parameter.dtype.element_ty), mask=inside)


@triton.jit
def _step(
    table, sizes, owners, blocks, numbers, num_tensors, beta1, beta2, eps, decay,
    KIND: tl.constexpr, NUM_MOMENTS: tl.constexpr, ELEMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    owner, start, left = _place(sizes, owners, blocks, BLOCK)
    element: tl.constexpr = tl.pointer_type(ELEMENT)
    moment: tl.constexpr = tl.pointer_type(tl.float32)
    parameter, gradient = tl.load(table + owner), tl.load(table + num_tensors + owner)
    first = tl.load(table + 2 * num_tensors + owner)
    second = first
    if NUM_MOMENTS == 2:
        second = tl.load(table + 3 * num_tensors + owner)
    at = tl.arange(0, BLOCK)
    if (left >= BLOCK) & ((parameter | gradient | first | second) % 16 == 0):
        _update(
            tl.multiple_of(parameter.to(element), 16) + start, tl.multiple_of(gradient.to(element), 16) + start,
            tl.multiple_of(first.to(moment), 16) + start, tl.multiple_of(second.to(moment), 16) + start,
            at, None, numbers, beta1, beta2, eps, decay, KIND,
        )  # fmt: skip
    else:
        _update(
            parameter.to(element) + start, gradient.to(element) + start,
            first.to(moment) + start, second.to(moment) + start,
            at, at < left, numbers, beta1, beta2, eps, decay, KIND,
        )  # fmt: skip


def _on_device(numbers: Tensor, device: torch.device) -> Tensor:
    """Without waiting; a plain copy where there is no pinned memory."""
    return (numbers.pin_memory() if device.type == "cuda" else numbers).to(device, non_blocking=True)


class Batch:
    """Tensors of one dtype that are stepped together, and where they lie."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.device, self.dtype = parameters[0].device, parameters[0].dtype
        sizes = torch.tensor([parameter.numel() for parameter in parameters])
        counts = (sizes + BLOCK - 1) // BLOCK
        owners = torch.repeat_interleave(torch.arange(len(sizes)), counts)
        blocks = torch.arange(len(owners)) - (counts.cumsum(0) - counts)[owners]
        self.num_blocks, self.num_tensors = len(owners), len(sizes)
        self._sizes = _on_device(sizes, self.device)
        self._owners, self._blocks = (_on_device(x.int(), self.device) for x in (owners, blocks))
        self._numbers = torch.zeros(4, device=self.device)
        self._addresses: list[int] = []
        self._table = self._sizes

    def locate(self, *lists: Sequence[Tensor]) -> None:
        """Parameters, gradients and the moments, each in the order of the parameters."""
        addresses = [tensor.data_ptr() for tensors in lists for tensor in tensors]
        if addresses != self._addresses:
            self._addresses = addresses
            self._table = _on_device(torch.tensor(addresses), self.device)

    def square_sums(self) -> Tensor:
        """Of the blocks of the gradients, (blocks,)."""
        sums = torch.empty(self.num_blocks, device=self.device)
        if self.num_blocks:
            _squares[(self.num_blocks,)](
                self._table, self._sizes, self._owners, self._blocks, sums, self.num_tensors,
                ELEMENT=ELEMENTS[self.dtype], BLOCK=BLOCK, num_warps=warps(BLOCK),
            )  # fmt: skip
        return sums

    def step(
        self,
        rule: Rule,
        t: Tensor,
        learning_rate: float | Tensor,
        squares: Tensor | None = None,
        limit: float = 0.0,
    ) -> None:
        """Of all that was located. t: steps done before, () int64, which is increased.

        squares: of the norm that is to be at most `limit`, () float32; gradients are taken as they are without it.
        """
        self._numbers[RATE.value].fill_(learning_rate)
        logarithms = [math.log(beta) if beta else -math.inf for beta in (rule.beta1, rule.beta2)]
        _prepare[(1,)](
            t, squares, self._numbers, *logarithms, limit, HAS_LIMIT=squares is not None, num_warps=1
        )
        if self.num_blocks:
            _step[(self.num_blocks,)](
                self._table, self._sizes, self._owners, self._blocks, self._numbers, self.num_tensors,
                rule.beta1, rule.beta2, rule.eps, rule.weight_decay,
                KIND=rule.kind, NUM_MOMENTS=NUM_MOMENTS[rule.kind],
                ELEMENT=ELEMENTS[self.dtype], BLOCK=BLOCK, num_warps=warps(BLOCK),
            )  # fmt: skip


_LISTS = {"table": "*i64", "sizes": "*i64", "owners": "*i32", "blocks": "*i32"}


def _launch(function: Any, signature: dict[str, str], **constants: Any) -> Launch:
    return Launch(
        function=function,
        signature=signature,
        constants=constants,
        num_warps=warps(BLOCK) if "BLOCK" in constants else 1,
        divisible=tuple(name for name, kind in signature.items() if kind.startswith("*")),
        is_vectorised="BLOCK" in constants,
    )


def _step_launch(kind: Kind, element: Any) -> Launch:
    numbers = {
        "numbers": "*fp32",
        "num_tensors": "i32",
        "beta1": "fp32",
        "beta2": "fp32",
        "eps": "fp32",
        "decay": "fp32",
    }
    moments = NUM_MOMENTS[kind]
    return _launch(_step, {**_LISTS, **numbers}, KIND=kind, NUM_MOMENTS=moments, ELEMENT=element, BLOCK=BLOCK)


LAUNCHES = (
    _launch(
        _prepare,
        {
            "t": "*i64",
            "squares": "*fp32",
            "numbers": "*fp32",
            "log_beta1": "fp32",
            "log_beta2": "fp32",
            "limit": "fp32",
        },
        HAS_LIMIT=True,
    ),
    _launch(_squares, {**_LISTS, "sums": "*fp32", "num_tensors": "i32"}, ELEMENT=tl.float32, BLOCK=BLOCK),
    _step_launch("nadamw", tl.float32),
    _step_launch("nesterov", tl.float32),
    _step_launch("lion", tl.float32),
    _step_launch("nadamw", tl.bfloat16),
)
