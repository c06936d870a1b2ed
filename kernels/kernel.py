"""What every file of this folder ends with: a `Kernel`, and the parts that it is made of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from timetrial.kernels.choice import Choice
from timetrial.kernels.used import note_form

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Arguments = tuple[Any, ...]
Function = Callable[..., Any]  # of tensors and numbers, to a tensor or a tuple of tensors

TRITON_NAMES = {
    "torch.float32": "fp32",
    "torch.bfloat16": "bf16",
    "torch.float16": "fp16",
}  # of element types
ELEMENT_SIZES = {"fp32": 4, "bf16": 2}  # bytes, by Triton's names
MOST_WARPS = 8
MULTIPROCESSORS, REGISTERS = 132, 65_536  # of an H100, and of each of them
MOST_REGISTERS = 248  # of a thread
VALUES_A_THREAD = 8  # 16 bytes of bfloat16


@dataclass(frozen=True, kw_only=True)
class Case:
    """Arguments of an operation: small ones to test it on, moderate ones to measure a CPU on, large ones for a GPU."""

    name: str
    make: Callable[["torch.Generator", "torch.dtype", "torch.device"], Arguments]
    size: Literal["small", "moderate", "large"] = "small"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The least that an operation must do: its floor on a machine is the longer one of the two times."""

    bytes_moved: int  # inputs read once and outputs written once
    flops: int = 0  # of matrix products alone; other arithmetic hides behind the bytes


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One specialisation of a Triton function, to be compiled ahead of time."""

    function: Any  # what @triton.jit made
    signature: Mapping[str, str]  # argument to Triton's name of its type, constants left out
    constants: Mapping[str, Any]
    num_warps: int
    num_stages: int = 3
    most_registers: int | None = None  # of a thread; None leaves it to the compiler
    divisible: tuple[str, ...] = ()  # multiples of 16, pointers in bytes
    is_matrix: bool = False  # whether it must use the matrix units
    is_vectorised: bool = True  # whether it must load 16 bytes at a time


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One operation in two forms that agree: plain torch, and fused."""

    name: str
    reference: Function  # plain, differentiable, on any device
    fused: Function  # the same contract by Triton, differentiable, a torch operator
    why_not: Callable[..., str | None]  # of the same arguments: why `fused` does not apply to them, or None
    cases: tuple[Case, ...]
    forward_cost: Callable[..., Cost]  # of the same arguments
    backward_cost: Callable[..., Cost]
    launches: Callable[[], tuple[Launch, ...]]  # as the choices stand
    choices: tuple[Choice, ...] = ()
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    # How much less exact than the reference in the same dtype, of the largest value: sums in another order, and, under
    # the interpreter, bfloat16 that is cut off instead of rounded.
    slack: Mapping[str, float] = field(default_factory=lambda: {"float32": 2e-6, "bfloat16": 2.0**-7})

    def __post_init__(self) -> None:
        from torch.compiler import assume_constant_result

        # So that it is called while code is traced, and not by what is compiled.
        assume_constant_result(note_form)

    def __call__(self, *arguments: Any) -> Any:
        """The operation, fused where that applies."""
        why_plain = self.why_not(*arguments)
        note_form(self.name, why_plain)
        return (self.reference if why_plain else self.fused)(*arguments)


def unsuitable(first: "Tensor", *others: "Tensor | None") -> str | None:
    """What keeps every kernel from these tensors: the first one's dtype, the device, or how their elements lie; or a
    transform of torch.func or forward-mode differentiation, which operators of one's own do not know.
    """
    tensors = [tensor for tensor in (first, *others) if tensor is not None]
    if any(_is_transformed(tensor) for tensor in tensors):
        return "they are seen through a transform of torch.func or forward-mode differentiation"
    if str(first.dtype) not in TRITON_NAMES:
        return f"the first tensor is of {first.dtype}: it should be of {', '.join(TRITON_NAMES)}"
    for place, tensor in enumerate(tensors, 1):
        if not tensor.is_contiguous():
            return f"the elements of tensor {place} do not lie side by side"
    for place, tensor in enumerate(tensors, 1):
        if tensor.device.type != "cuda":
            return f"tensor {place} is on {tensor.device}, and the kernels run on CUDA devices"
    return None


def _is_transformed(tensor: "Tensor") -> bool:
    """Compiled code is not asked: what it asks would end its graph."""
    import torch
    from torch.autograd import forward_ad

    if torch.compiler.is_compiling():
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return True
    return forward_ad.unpack_dual(tensor).tangent is not None


def shape_of(*tensors: "Tensor") -> str:
    """Shapes, for a reason. In compiled code, which may be for several shapes, how many dimensions they have."""
    from torch.compiler import is_compiling

    return ", ".join(f"{tensor.ndim}-D" if is_compiling() else str(tuple(tensor.shape)) for tensor in tensors)


def size_in_bytes(*tensors: "Tensor") -> int:
    """Of all elements."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def power_of_two(number: int) -> int:
    """The least one that is not below `number`, 1 or more."""
    return 1 << max(number - 1, 0).bit_length()


def most_registers(programs: int, num_warps: int) -> int:
    """Of a thread, if so many programs are to be on a multiprocessor at once.

    NVIDIA's assembler takes few where it is not told, and then has a thread wait for one load before the next.
    """
    return min(REGISTERS // (programs * 32 * num_warps) // 8 * 8, MOST_REGISTERS)


def warps(block: int) -> int:
    """As many as give each thread 16 bytes of bfloat16 of a block, within 1 to 8."""
    return min(max(block // (32 * VALUES_A_THREAD), 1), MOST_WARPS)
