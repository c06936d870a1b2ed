"""Exponentials in few instructions, which is what kernels over bfloat16 wait for.

On NVIDIA GPUs 2^x is one instruction and a reciprocal root another. e^x as the compiler makes it takes five, since it
minds results below 1e-38, which here become 0; a quotient takes eight.
"""

import math

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1 / math.log(2))


@triton.jit
def exp(x):
    return tl.exp2(x * LOG2_E)


@triton.jit
def sigmoid(x):
    """At -80 it is 2e-35, and below as at -80, so that nothing overflows."""
    root = tl.rsqrt(1 + exp(tl.minimum(-x, 80.0, propagate_nan=tl.PropagateNan.ALL)))
    return root * root
