"""All operations that have a Triton kernel, by name. Needs torch and Triton."""

from timetrial.kernels import (
    layer_norm_triton,
    linear_cross_entropy_triton,
    sigmoid_cross_entropy_triton,
    softmax_cross_entropy_triton,
)
from timetrial.kernels.kernel import Kernel

KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        softmax_cross_entropy_triton.KERNEL,
        sigmoid_cross_entropy_triton.KERNEL,
        layer_norm_triton.KERNEL,
        linear_cross_entropy_triton.KERNEL,
    )
}
