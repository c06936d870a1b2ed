"""All operations that have a Triton kernel, by name. Needs torch and Triton."""

from timetrial.kernels import (
    depthwise_conv_glu_triton,
    layer_norm_triton,
    log_mel_triton,
    sigmoid_cross_entropy_triton,
    softmax_cross_entropy_triton,
    ssim_triton,
)
from timetrial.kernels.kernel import Kernel

KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        softmax_cross_entropy_triton.KERNEL,
        sigmoid_cross_entropy_triton.KERNEL,
        layer_norm_triton.KERNEL,
        depthwise_conv_glu_triton.KERNEL,
        ssim_triton.KERNEL,
        log_mel_triton.KERNEL,
    )
}
