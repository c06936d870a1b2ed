"""A bidirectional LSTM over padded sequences, in torch. Shapes: B batch, T frames, D features, H hidden width.

torch's own kernels do the recurrence: oneDNN's on a CPU, cuDNN's on an NVIDIA GPU. They run over all T frames, without
packing, whose lengths would have to wait for the GPU, and without flipping sequences. That padding leaves no trace is
done by one more feature, 1 where a frame is padding, whose weight closes the input and output gates there: a state of
zeros stays zero, so that the reverse direction enters the last frame with one, and the output is exactly 0.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timetrial.workloads.models.initializers_torch import lecun_normal_

CLOSED = -1e4  # what padding adds to a gate; its sigmoid is 0 in every precision
FLAG_COLUMNS = 8  # the feature that flags padding, and zeros: tensor cores want multiples of eight
HAS_ONEDNN = torch.backends.mkldnn.is_available()
LSTM_MODE = 2  # what torch's cuDNN operators call an LSTM


class BiLSTM(nn.Module):
    """One layer, (B, T, D) to (B, T, 2 H): an LSTM over the frames beside one over them in reverse order.

    Gates are stacked in the order i, f, g, o and have one bias. Initial state 0; padded frames, which come last, are
    left out and have output 0. Names are nn.LSTM's. Input weights start LeCun-normal, recurrent ones orthogonal for
    each gate, biases at 0.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        for suffix in ("", "_reverse"):
            of_input = lecun_normal_(torch.empty(4 * hidden, width))
            recurrent = torch.cat([nn.init.orthogonal_(torch.empty(hidden, hidden)) for _ in range(4)])
            self.register_parameter(f"weight_ih_l0{suffix}", nn.Parameter(of_input))
            self.register_parameter(f"weight_hh_l0{suffix}", nn.Parameter(recurrent))
            self.register_parameter(f"bias_ih_l0{suffix}", nn.Parameter(torch.zeros(4 * hidden)))

    def forward(self, x_BTD: Tensor, padding_BT: Tensor) -> Tensor:
        """padding: 1.0 where there is nothing, else 0.0. Under autocast, in its precision."""
        device = x_BTD.device.type
        autocast = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if autocast else x_BTD.dtype
        flags_TB8 = F.pad(padding_BT.transpose(0, 1)[..., None], (0, FLAG_COLUMNS - 1))
        x_TBD = torch.cat((x_BTD.transpose(0, 1), flags_TB8.to(x_BTD.dtype)), -1).to(dtype)
        weights = [weight.to(dtype) for suffix in ("", "_reverse") for weight in self._weights(suffix)]
        with torch.autocast(device, enabled=False):
            return bidirectional_lstm(x_TBD, weights).transpose(0, 1)

    def _weights(self, suffix: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As nn.LSTM has them, with the columns that close gates and a second bias of zeros."""
        of_input, recurrent, bias = (
            self.get_parameter(f"{name}_l0{suffix}") for name in ("weight_ih", "weight_hh", "bias_ih")
        )
        hidden = recurrent.shape[1]
        closing = of_input.new_zeros(4, hidden, FLAG_COLUMNS)
        closing[::3, :, 0] = CLOSED  # gates i and o
        return torch.cat((of_input, closing.flatten(0, 1)), 1), recurrent, bias, torch.zeros_like(bias)


def bidirectional_lstm(x_TBD: Tensor, weights: list[Tensor]) -> Tensor:
    """(T, B, D) to (T, B, 2 H), by nn.LSTM's kernels; `weights` are its four of each direction."""
    output: Tensor
    has_cudnn = x_TBD.is_cuda and bool(torch.version.cuda)
    if torch.compiler.is_compiling() and HAS_ONEDNN and x_TBD.is_cpu and x_TBD.dtype == torch.float32:
        output, *_ = _onednn_lstm(x_TBD, weights, torch.is_grad_enabled())
    elif not has_cudnn:
        state = x_TBD.new_zeros(2, x_TBD.shape[1], weights[1].shape[1])
        output, _, _ = torch.lstm(x_TBD, (state, state), weights, True, 1, 0.0, True, True, False)
    elif torch.compiler.is_compiling():
        output, _, _ = _cudnn_lstm(x_TBD, weights, torch.is_grad_enabled())
    else:
        arguments = _arguments(x_TBD, weights, torch.is_grad_enabled())
        output, *_ = torch.ops.aten._cudnn_rnn.default(*arguments)
    return output


@torch.library.custom_op("timetrial::onednn_lstm", mutates_args=(), device_types="cpu")
def _onednn_lstm(x_TBD: Tensor, weights: list[Tensor], train: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, and what the gradient needs: last states and memories (2, 2, 1, B, H), and each direction's workspace.

    An operator of its own for the same reason as cuDNN's below. Calls what torch.lstm does on a CPU.
    """
    state = x_TBD.new_zeros(1, x_TBD.shape[1], weights[1].shape[1])
    layer = (LSTM_MODE, state.shape[-1], 1, True, False, False, train)
    with torch.set_grad_enabled(train):  # where gradients are off, there is no workspace
        (one, *kept), (other, *kept_too) = (
            torch.ops.aten.mkldnn_rnn_layer.default(
                x_TBD, *weights[4 * way : 4 * way + 4], state, state, bool(way), [], *layer
            )
            for way in range(2)
        )
    last = torch.stack([torch.stack(each[:2]) for each in (kept, kept_too)])
    none = x_TBD.new_empty(0)
    first, second = (kept[2], kept_too[2]) if train else (none, none.clone())
    return torch.cat((one, other), -1), last, first, second


@_onednn_lstm.register_fake
def _(x_TBD: Tensor, weights: list[Tensor], train: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (frames, batch, _), hidden = x_TBD.shape, weights[1].shape[1]
    last = x_TBD.new_empty(2, 2, 1, batch, hidden)
    # How large the workspace is oneDNN alone knows.
    return x_TBD.new_empty(frames, batch, 2 * hidden), last, x_TBD.new_empty(0), x_TBD.new_empty(0)


@torch.library.custom_op("timetrial::onednn_lstm_backward", mutates_args=(), device_types="cpu")
def _onednn_lstm_backward(
    gradient: Tensor, x_TBD: Tensor, weights: list[Tensor], output: Tensor, last: Tensor, workspaces: list[Tensor]
) -> list[Tensor]:  # fmt: skip
    """Gradients of x and of each weight."""
    state = torch.zeros_like(last[0, 0])
    parts = zip(gradient.chunk(2, -1), output.chunk(2, -1), last, workspaces, strict=True)
    ways = [
        torch.ops.aten.mkldnn_rnn_layer_backward.default(
            x_TBD, *weights[4 * way : 4 * way + 4], state, state, ours.contiguous(), states, memories,
            above.contiguous(), None, None, bool(way), LSTM_MODE, state.shape[-1], 1, True, True, False, [], False,
            workspace,
        )
        for way, (above, ours, (states, memories), workspace) in enumerate(parts)
    ]  # fmt: skip
    # Both biases have the same gradient, and may be one tensor.
    return [ways[0][0] + ways[1][0], *(part.clone() for way in ways for part in way[1:5])]


@_onednn_lstm_backward.register_fake
def _(
    gradient: Tensor, x_TBD: Tensor, weights: list[Tensor], output: Tensor, last: Tensor, workspaces: list[Tensor]
) -> list[Tensor]:  # fmt: skip
    return [torch.empty_like(tensor) for tensor in (x_TBD, *weights)]


def _keep_onednns(ctx: Any, inputs: tuple[Tensor, list[Tensor], bool], output: tuple[Tensor, ...]) -> None:
    x_TBD, weights, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x_TBD, *output, *weights)


def _onednns_backward(ctx: Any, gradient: Tensor, *_: None) -> tuple[Tensor, list[Tensor], None]:
    x_TBD, output, last, one, other, *weights = ctx.saved_tensors
    of_x, *of_weights = _onednn_lstm_backward(gradient, x_TBD, weights, output, last, [one, other])
    return of_x, of_weights, None


_onednn_lstm.register_autograd(_onednns_backward, setup_context=_keep_onednns)


def _arguments(x_TBD: Tensor, weights: list[Tensor], train: bool) -> tuple[Any, ...]:
    """Of cuDNN's forward operator: one bidirectional layer with two biases, no projection, no dropout, time first."""
    state = x_TBD.new_zeros(2, x_TBD.shape[1], weights[1].shape[1])
    layer = (LSTM_MODE, state.shape[-1], 0, 1, False, 0.0, train, True)
    return x_TBD, weights, 4, None, state, state, *layer, [], None


@torch.library.custom_op("timetrial::cudnn_lstm", mutates_args=(), device_types="cuda")
def _cudnn_lstm(x_TBD: Tensor, weights: list[Tensor], train: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Output, and what the gradient needs: cuDNN's reserve and its buffer of weights.

    An operator of its own, since torch.compile unrolls torch's, frame by frame. How large the reserve is cuDNN alone
    knows; to the compiler it has size 0, as in torch.
    """
    output, _, _, reserve, buffer = torch.ops.aten._cudnn_rnn.default(*_arguments(x_TBD, weights, train))
    return output, reserve, buffer


@_cudnn_lstm.register_fake
def _(x_TBD: Tensor, weights: list[Tensor], train: bool) -> tuple[Tensor, Tensor, Tensor]:
    output = x_TBD.new_empty(*x_TBD.shape[:2], 2 * weights[1].shape[1])
    return output, x_TBD.new_empty(0, dtype=torch.uint8), x_TBD.new_empty(0)


@torch.library.custom_op("timetrial::cudnn_lstm_backward", mutates_args=(), device_types="cuda")
def _cudnn_lstm_backward(
    gradient: Tensor, x_TBD: Tensor, weights: list[Tensor], output: Tensor, reserve: Tensor, buffer: Tensor
) -> list[Tensor]:
    """Gradients of x and of each weight. cuDNN overwrites the reserve: a second call would be wrong."""
    _, _, stride, _, state, _, *layer = _arguments(x_TBD, weights, True)
    forward = (x_TBD, weights, stride, buffer, state, state, output)
    wanted = [True, False, False, True]
    of_x, _, _, of_weights = torch.ops.aten._cudnn_rnn_backward.default(
        *forward, gradient.contiguous(), None, None, *layer, reserve, wanted
    )
    return [of_x, *(part.clone() for part in of_weights)]  # the parts are views of one buffer


@_cudnn_lstm_backward.register_fake
def _(
    gradient: Tensor, x_TBD: Tensor, weights: list[Tensor], output: Tensor, reserve: Tensor, buffer: Tensor
) -> list[Tensor]:
    return [torch.empty_like(tensor) for tensor in (x_TBD, *weights)]


def _keep(ctx: Any, inputs: tuple[Tensor, list[Tensor], bool], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x_TBD, weights, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x_TBD, *output, *weights)


def _backward(ctx: Any, gradient: Tensor, *_: None) -> tuple[Tensor, list[Tensor], None]:
    x_TBD, output, reserve, buffer, *weights = ctx.saved_tensors
    of_x, *of_weights = _cudnn_lstm_backward(gradient, x_TBD, weights, output, reserve, buffer)
    return of_x, of_weights, None


_cudnn_lstm.register_autograd(_backward, setup_context=_keep)
