"""Connectionist temporal classification (CTC) in JAX: its loss, and the score of a batch of speech.

What is computed, and which utterances count, is told in `ctc_torch.py`. Shapes: B batch, T frames, V vocabulary,
L label tokens.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

BLANK = 0
# The logarithm of the probability 0: finite, so that no gradient is that of an infinity, and so far below any loss
# that it weighs nothing.
LOG_ZERO = -1e30


def ctc_loss(
    labels: tuple[Array, Array],
    logits: tuple[Array, Array],
    mask: Array | None,
    label_smoothing: float | Array,
) -> dict[str, Array]:
    """Minus log-likelihood in nats of each utterance, over the number of label tokens.

    labels: tokens (B, L) and their padding (B, L), 1 = padded. logits: (B, T, V) and the padding of their frames
    (B, T); padding comes last. mask: (B,), 1 counts and 0 is padding. `label_smoothing` is ignored.
    Returns `per_example` (B,), their sum `summed`, and `n_valid_examples`, the label tokens that count, at least 1.
    """
    del label_smoothing
    per_example, tokens = _losses_and_tokens(labels, logits, mask)
    return {
        "summed": per_example.sum(),
        "n_valid_examples": jnp.maximum(tokens.sum(), 1),
        "per_example": per_example,
    }


def ctc_score(batch: Mapping[str, Any], logits: tuple[Array, Array]) -> dict[str, Array]:
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
        "references": jnp.where(padding == 0, tokens, 0),
        "weights": jnp.ones_like(losses) if weights is None else weights,
    }


def greedy_path(logits_BTV: Array, padding_BT: Array) -> Array:
    """The most probable symbol of each frame, padded frames, repeats and then blanks dropped: (B, T), zeros after."""
    symbols = logits_BTV.argmax(-1)
    before = jnp.pad(symbols[:, :-1], ((0, 0), (1, 0)), constant_values=BLANK)
    keep = (symbols != BLANK) & (symbols != before) & (padding_BT == 0)
    place = jnp.where(keep, keep.cumsum(1) - 1, symbols.shape[1])  # outside: dropped
    rows = jnp.arange(len(symbols))[:, None]
    return jnp.full_like(symbols, BLANK).at[rows, place].set(symbols, mode="drop")


def _losses_and_tokens(
    labels: tuple[Array, Array], logits: tuple[Array, Array], mask: Array | None
) -> tuple[Array, Array]:
    """Of each utterance: its loss (B,) and its number of label tokens (B,); both 0 where it does not count."""
    (tokens, label_padding), (logits_BTV, frame_padding) = labels, logits
    lengths, frames = (label_padding == 0).sum(1), (frame_padding == 0).sum(1)
    pairs = (tokens[:, 1:] == tokens[:, :-1]) & (label_padding[:, 1:] == 0)
    possible = frames >= jnp.maximum(lengths + pairs.sum(1), 1)
    logits_BTV = logits_BTV.astype(jnp.promote_types(logits_BTV.dtype, jnp.float32))
    # Where no path exists, that of no labels stands in, whose loss is finite and is weighted with 0.
    losses = _losses(logits_BTV, frame_padding, tokens, jnp.where(possible, lengths, 0))
    weights = possible.astype(losses.dtype)
    if mask is not None:
        weights = weights * mask
    return losses * weights, lengths * weights


def _losses(logits_BTV: Array, padding_BT: Array, tokens_BL: Array, lengths_B: Array) -> Array:
    """The losses (B,), by a recursion over the frames.

    Its states are the logarithms of the probability of all beginnings of paths that have spelled n labels and then
    stand on a blank, (B, L + 1), or on the last of these labels, (B, L). The frames' probabilities of the labels
    are gathered once, before it: a product with one-hot labels costs V times as much.
    """
    log_probabilities = jax.nn.log_softmax(logits_BTV, axis=-1)
    blanks_TB = log_probabilities[:, :, BLANK].swapaxes(0, 1)
    labels_TBL = jnp.take_along_axis(log_probabilities, tokens_BL[:, None], axis=2).swapaxes(0, 1)
    repeated_BL = jnp.pad(tokens_BL[:, 1:] == tokens_BL[:, :-1], ((0, 0), (1, 0)))

    def after(labels_BL: Array) -> Array:
        """The label's states moved up by one: what n labels were spelled with, (B, L + 1)."""
        return jnp.pad(labels_BL, ((0, 0), (1, 0)), constant_values=LOG_ZERO)

    def step(
        states: tuple[Array, Array], frame: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Array], None]:
        on_blank, on_label = states
        blank_B, label_BL, padded_B = frame
        on_last = after(on_label)
        # A label directly follows another one, unless it is the same one again.
        directly = jnp.where(repeated_BL, LOG_ZERO, on_last[:, :-1])
        blank = jnp.logaddexp(on_blank, on_last) + blank_B[:, None]
        label = jnp.logaddexp(jnp.logaddexp(on_label, on_blank[:, :-1]), directly) + label_BL
        padded = padded_B[:, None] != 0
        return (jnp.where(padded, on_blank, blank), jnp.where(padded, on_label, label)), None

    batch, length = tokens_BL.shape
    nothing = jnp.full((batch, length + 1), LOG_ZERO, log_probabilities.dtype)
    start = (nothing.at[:, 0].set(0.0), nothing[:, 1:])
    (on_blank, on_label), _ = jax.lax.scan(step, start, (blanks_TB, labels_TBL, padding_BT.swapaxes(0, 1)))
    all_paths = jnp.logaddexp(on_blank, after(on_label))
    return -jnp.take_along_axis(all_paths, lengths_B[:, None], axis=1)[:, 0]
