"""The bytes that XLA moves for our operations, beside their floor: `python benchmarks/xla_bytes.py`.

Each operation is compiled as the JAX models have it, forward and with its gradient, for this machine's CPU and,
where the extra `jax-ahead-of-time` is installed, for an H100 that need not be there (`kernels/ahead_of_time_jax.py`).
"One pass" is what `kernels/` has instead. Printed is what the compiled program reads and writes, over the least that it
must: where memory limits it, a ratio of 3 takes three times as long as it need. "Kept" is what it keeps meanwhile
beside arguments and results. Nothing is run and no array is made.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from timetrial.kernels import ahead_of_time_jax, softmax_cross_entropy_jax
from timetrial.workloads.graph_losses_jax import masked_sigmoid_cross_entropy
from timetrial.workloads.losses_jax import softmax_cross_entropy
from timetrial.workloads.models.masked_batch_norm_jax import BatchNorm
from timetrial.workloads.models.offset_layer_norm_jax import LayerNorm
from timetrial.workloads.ssim_jax import structural_similarity

Shapes = tuple[tuple[tuple[int, ...], Any], ...]
ROWS, WIDTH, CLASSES = 16_384, 1_024, 32_000
FRAMES = (32, 600, 512)
NORMS = (  # of transformers and of speech models
    ("layer norm", nn.LayerNorm(epsilon=1e-6, use_fast_variance=False)),
    ("layer norm, offset gain", LayerNorm(1e-6)),
)
EDGES, NODES, LATENT = 65_536, 32_768, 256
IMAGES = (64, 320, 320)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A function of arrays, and floors in bytes."""

    name: str
    function: Callable[..., Any]  # to one array
    shapes: Shapes  # of its arguments, and their types
    leaves: tuple[int, ...]  # arguments that have a gradient; none where nobody needs one
    forward: int  # elements of 4 bytes read and written
    both: int = 0


def losses(
    loss: Callable[..., dict[str, Any]], smoothing: float, logits: Any, labels: Any, weights: Any
) -> Any:
    return loss(labels, logits, weights, smoothing)["summed"]


def one_pass(logits: Any, labels: Any, weights: Any) -> Any:
    return softmax_cross_entropy_jax.softmax_cross_entropy(logits, labels, weights, 0.1).sum()


def linear(loss: Callable[..., Any], hidden: Any, matrix: Any, labels: Any, weights: Any) -> Any:
    return loss(hidden @ matrix.T, labels, weights)


def normalised(module: nn.Module, scale: Any, bias: Any, x: Any) -> Any:
    return module.apply({"params": {"scale": scale, "bias": bias}}, x)


def batch_normalised(scale: Any, bias: Any, x: Any, padding: Any) -> Any:
    averages = {"mean": jnp.zeros_like(scale), "var": jnp.ones_like(scale)}
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": averages}
    return BatchNorm(0.9).apply(variables, x, padding, False, mutable=["batch_stats"])[0]


def segment_sum(rows: Any, segments: Any) -> Any:
    return jax.ops.segment_sum(rows, segments, NODES, mode="promise_in_bounds")


def floats(*shape: int) -> tuple[tuple[int, ...], Any]:
    return shape, jnp.float32


def integers(*shape: int) -> tuple[tuple[int, ...], Any]:
    return shape, jnp.int32


def operations() -> Iterator[Operation]:
    """At the shapes of a large batch. Small arrays, such as weights of rows, are left out of the floors."""
    logits, rows = ROWS * CLASSES, (integers(ROWS), floats(ROWS))
    ends = ROWS * WIDTH + CLASSES * WIDTH
    for name, loss in (("", partial(losses, softmax_cross_entropy, 0.1)), (", one pass", one_pass)):
        yield Operation(
            name=f"softmax cross-entropy{name}",
            function=loss,
            shapes=(floats(ROWS, CLASSES), *rows),
            leaves=(0,),
            forward=logits,
            both=3 * logits,  # the gradient needs each row's sum first
        )
        yield Operation(
            name=f"linear, softmax cross-entropy{name}",
            function=partial(linear, loss),
            shapes=(floats(ROWS, WIDTH), floats(CLASSES, WIDTH), *rows),
            leaves=(0, 1),
            forward=2 * logits + ends,  # a product of two matrices stores what it makes
            both=6 * logits + 3 * ends,  # and two of them read the gradient of the logits
        )
    cells = 32_768 * 128
    yield Operation(
        name="sigmoid cross-entropy",
        function=partial(losses, masked_sigmoid_cross_entropy, 0.0),
        shapes=(floats(32_768, 128),) * 3,
        leaves=(0,),
        forward=3 * cells,
        both=4 * cells,  # in one pass, since the gradient of the sum is known
    )
    for name, module in NORMS:
        x = ROWS * WIDTH
        yield Operation(
            name=name,
            function=partial(normalised, module),
            shapes=(floats(WIDTH), floats(WIDTH), floats(ROWS, WIDTH)),
            leaves=(0, 1, 2),
            forward=2 * x,
            both=5 * x,
        )
    x = FRAMES[0] * FRAMES[1] * FRAMES[2]
    yield Operation(
        name="masked batch norm",
        function=batch_normalised,
        shapes=(floats(FRAMES[2]), floats(FRAMES[2]), floats(*FRAMES), floats(*FRAMES[:2])),
        leaves=(0, 1, 2),
        forward=3 * x,  # once more than once, for the statistics come first
        both=8 * x,  # and x and the gradient twice, for their sums come first
    )
    edges, nodes = EDGES * LATENT, NODES * LATENT
    yield Operation(
        name="segment sum",
        function=segment_sum,
        shapes=(floats(EDGES, LATENT), integers(EDGES)),
        leaves=(0,),
        forward=edges + nodes,
        both=2 * (edges + nodes),
    )
    yield Operation(
        name="SSIM",
        function=structural_similarity,
        shapes=(floats(*IMAGES), floats(*IMAGES), floats(IMAGES[0])),
        leaves=(),
        forward=2 * IMAGES[0] * IMAGES[1] * IMAGES[2],
    )


def with_gradient(operation: Operation) -> Callable[..., Any]:
    """Of the arguments, then of the output's gradient: the output, and gradients of the leaves."""

    def call(*arguments: Any) -> Any:
        *arguments_, above = arguments

        def of_leaves(*leaves: Any) -> Any:
            whole = list(arguments_)
            for place, leaf in zip(operation.leaves, leaves, strict=True):
                whole[place] = leaf
            return operation.function(*whole)

        value, backward = jax.vjp(of_leaves, *(arguments_[place] for place in operation.leaves))
        return value, backward(above)

    return call


def compiled(function: Callable[..., Any], shapes: Shapes, device: jax.Device) -> jax.stages.Compiled:
    where = SingleDeviceSharding(device)
    return (
        jax.jit(function).lower(*(jax.ShapeDtypeStruct(*each, sharding=where) for each in shapes)).compile()
    )


def measured(operation: Operation, device: jax.Device) -> Iterator[tuple[str, int, jax.stages.Compiled]]:
    """The passes of an operation, their floors in bytes, and what XLA makes of them."""
    yield "forward", 4 * operation.forward, compiled(operation.function, operation.shapes, device)
    if operation.leaves:
        output = jax.eval_shape(
            operation.function, *(jax.ShapeDtypeStruct(*each) for each in operation.shapes)
        )
        shapes = (*operation.shapes, (output.shape, output.dtype))
        yield "both", 4 * operation.both, compiled(with_gradient(operation), shapes, device)


@click.command()
def main() -> None:
    """Compile all operations, and print what they move."""
    devices = {}
    if why := ahead_of_time_jax.why_not():
        click.echo(f"For the CPU alone: {why}")
    else:
        devices["H100"] = ahead_of_time_jax.h100s(1)[0]
    devices = {"CPU": jax.local_devices(backend="cpu")[0], **devices}
    click.echo(
        f"{'operation':38}{'pass':>9}{'floor':>9}"
        + "".join(f"{d:>8}{'ratio':>7}{'kept':>8}" for d in devices)
    )
    click.echo(f"{'':38}{'':>9}{'MB':>9}" + f"{'MB':>8}{'':>7}{'MB':>8}" * len(devices))
    for operation in operations():
        for passes in zip(*(measured(operation, device) for device in devices.values()), strict=True):
            which, floor, _ = passes[0]
            cells = ""
            for _, _, program in passes:
                moved = ahead_of_time_jax.bytes_accessed(program)
                kept = program.memory_analysis().temp_size_in_bytes
                cells += f"{moved / 1e6:8.0f}{moved / floor:7.2f}{kept / 1e6:8.0f}"
            click.echo(f"{operation.name:38}{which:>9}{floor / 1e6:9.0f}{cells}")


if __name__ == "__main__":
    main()
