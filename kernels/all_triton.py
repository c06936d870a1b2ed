"""All operations that have a Triton kernel, what they choose, and all that is compiled. Needs torch, Triton."""

from collections.abc import Callable

from timetrial.kernels import (
    column_sums_triton,
    depthwise_conv_glu_triton,
    embedding_interaction_triton,
    gather_rows_triton,
    layer_norm_triton,
    linear_cross_entropy_triton,
    log_mel_triton,
    masked_batch_norm_triton,
    newton_schulz_triton,
    optimizer_step_triton,
    segment_sum_triton,
    sigmoid_cross_entropy_triton,
    softmax_cross_entropy_triton,
    ssim_triton,
)
from timetrial.kernels.choice import Choice
from timetrial.kernels.kernel import Kernel, Launch

KERNELS: dict[str, Kernel] = {
    kernel.name: kernel
    for kernel in (
        softmax_cross_entropy_triton.KERNEL,
        sigmoid_cross_entropy_triton.KERNEL,
        layer_norm_triton.KERNEL,
        linear_cross_entropy_triton.KERNEL,
        newton_schulz_triton.KERNEL,
        masked_batch_norm_triton.KERNEL,
        segment_sum_triton.KERNEL,
        gather_rows_triton.KERNEL,
        embedding_interaction_triton.KERNEL,
        depthwise_conv_glu_triton.KERNEL,
        ssim_triton.KERNEL,
        log_mel_triton.KERNEL,
    )
}

# Of every kernel as its choices stand, and of what is no `Kernel`: a part of several, and what is in place.
LAUNCHES: dict[str, Callable[[], tuple[Launch, ...]]] = {
    **{name: kernel.launches for name, kernel in KERNELS.items()},
    "column_sums": lambda: (column_sums_triton.LAUNCH,),
    "optimizer_step": lambda: optimizer_step_triton.LAUNCHES,
}
CHOICES: tuple[Choice, ...] = tuple(choice for kernel in KERNELS.values() for choice in kernel.choices)
