"""Connectionist temporal classification (CTC) in torch: its loss, and the score of a batch of speech.

Shapes: B batch, T frames, V vocabulary, L label tokens. Symbol 0 is the blank, and what labels are padded with.
A path is one symbol a frame. It spells the labels that remain once repeats are collapsed and then blanks dropped;
the loss is minus the logarithm of the probability of all paths that spell the given labels (Graves et al. 2006).

Which utterances count is told by lengths alone, equally in both frameworks. One that has fewer frames than label
tokens plus pairs of equal neighbours (between which a blank must stand), or no frame at all, is spelled by no path:
it has loss 0, gradient 0, and its tokens are not counted.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BLANK = 0


def ctc_loss(
    labels: tuple[Tensor, Tensor],
    logits: tuple[Tensor, Tensor],
    mask: Tensor | None,
    label_smoothing: float,
) -> dict[str, Tensor]:
    """Minus log-likelihood in nats of each utterance, over the number of label tokens.

    labels: tokens (B, L) and their padding (B, L), 1 = padded. logits: (B, T, V) and the padding of their frames
    (B, T); padding comes last. mask: (B,), 1 counts and 0 is padding. `label_smoothing` is ignored.
    Returns `per_example` (B,), their sum `summed`, and `n_valid_examples`, the label tokens that count, at least 1.
    """
    del label_smoothing
    per_example, tokens = _losses_and_tokens(labels, logits, mask)
    return {
        "summed": per_example.sum(),
        "n_valid_examples": tokens.sum().clamp(min=1),
        "per_example": per_example,
    }


def ctc_score(batch: Mapping[str, Any], logits: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """Sums `ctc_loss` and `count` (label tokens), and what word errors are counted from.

    The rows: `hypotheses` (B, T), what the most probable symbols of the frames spell; `references` (B, L); both are
    followed by zeros. `weights` (B,): 1 counts and 0 is padding.
    """
    tokens, padding = batch["targets"]
    weights = batch.get("weights")
    losses, counts = _losses_and_tokens((tokens, padding), logits, weights)
    return {
        "ctc_loss": losses.sum(),
        "count": counts.sum(),
        "hypotheses": greedy_path(*logits),
        "references": torch.where(padding == 0, tokens, 0),
        "weights": torch.ones_like(losses) if weights is None else weights,
    }


def greedy_path(logits_BTV: Tensor, padding_BT: Tensor) -> Tensor:
    """The most probable symbol of each frame, padded frames, repeats and then blanks dropped: (B, T), zeros after."""
    symbols = logits_BTV.argmax(-1)
    before = F.pad(symbols[:, :-1], (1, 0), value=BLANK)
    keep = (symbols != BLANK) & (symbols != before) & (padding_BT == 0)
    frames = symbols.shape[1]
    place = torch.where(keep, keep.cumsum(1) - 1, frames)  # what is dropped goes into one more column
    spelled = torch.full_like(F.pad(symbols, (0, 1)), BLANK)
    return spelled.scatter(1, place, symbols)[:, :frames]


def _losses_and_tokens(
    labels: tuple[Tensor, Tensor], logits: tuple[Tensor, Tensor], mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Of each utterance: its loss (B,) and its number of label tokens (B,); both 0 where it does not count."""
    (tokens, label_padding), (logits_BTV, frame_padding) = labels, logits
    lengths, frames = (label_padding == 0).sum(1), (frame_padding == 0).sum(1)
    pairs = (tokens[:, 1:] == tokens[:, :-1]) & (label_padding[:, 1:] == 0)
    possible = frames >= (lengths + pairs.sum(1)).clamp(min=1)
    # Where no path exists, that of no labels stands in, whose loss is finite and is weighted with 0.
    logits_BTV = logits_BTV.to(torch.promote_types(logits_BTV.dtype, torch.float32))
    losses, _ = _ctc(
        logits_BTV,
        tokens,
        frames.clamp(min=1),
        torch.where(possible, lengths, 0),
        logits_BTV.requires_grad and torch.is_grad_enabled(),
    )
    weights = possible.to(losses.dtype)
    if mask is not None:
        weights = weights * mask
    return losses * weights, lengths * weights


@torch.library.custom_op("timetrial::ctc", mutates_args=())
def _ctc(
    logits_BTV: Tensor, tokens: Tensor, frames: Tensor, lengths: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Losses (B,), and with `with_gradient` that of each to its logits (B, T, V), else an empty tensor.

    One operator, since torch.compile does not trace torch's own, whose table of states has as many columns as the
    longest label of the batch. torch's gradient is the one to the logits: probability minus expected share of paths.
    """
    log_probabilities = F.log_softmax(logits_BTV, -1).transpose(0, 1)
    arguments = (log_probabilities, tokens, frames, lengths)
    losses, states = torch.ops.aten._ctc_loss.Tensor(*arguments, BLANK)
    if not with_gradient:
        return losses, logits_BTV.new_empty(0)
    ones = torch.ones_like(losses)
    gradient = torch.ops.aten._ctc_loss_backward.Tensor(ones, *arguments, losses, states, BLANK)
    return losses, gradient.transpose(0, 1)


@_ctc.register_fake
def _(
    logits_BTV: Tensor, tokens: Tensor, frames: Tensor, lengths: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    batch, time, symbols = logits_BTV.shape
    gradient = (
        logits_BTV.new_empty(time, batch, symbols).transpose(0, 1)
        if with_gradient
        else logits_BTV.new_empty(0)
    )
    return logits_BTV.new_empty(batch), gradient


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[1])


def _backward(ctx: Any, of_losses: Tensor, of_gradient: None) -> tuple[Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    return gradient * of_losses[:, None, None], None, None, None, None


_ctc.register_autograd(_backward, setup_context=_keep_gradient)
