"""Beam search of a transformer's translations in JAX.

Shapes: B row, K beam, P place in a translation (0 is the start symbol), S position of the source, V token,
C candidate.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from timetrial.workloads.models.transformer import END_OF_SENTENCE, PADDING, Transformer, length_penalty
from timetrial.workloads.models.transformer_layers_jax import Cache, KeysValues, attention_mask

if TYPE_CHECKING:
    from timetrial.workloads.models.transformer_jax import Network


class Beams(NamedTuple):
    """The best hypotheses of every row so far, from best to worst.

    No keys and values are moved when a beam goes on from another's hypothesis: they stay in the slot of the beam
    that made them, and `visible` says which slots hold a beam's own past.
    """

    live_BKP: Array  # tokens
    log_probabilities_BK: Array  # of the live ones
    visible_BKPK: Array  # bool: at each place, which slot's keys and values the live hypothesis goes back to
    finished_BKP: Array  # tokens
    scores_BK: Array  # of the finished ones; -infinity where there is none yet


class Source(NamedTuple):
    """What the decoder attends to; a row of padding is no row."""

    layers: Sequence[KeysValues]
    mask_B11S: Array
    is_row_B: Array


def translations(network: "Network", params: Any, inputs_BS: Array) -> Array:
    """The best translation found of each row, in tokens (B, max_length - 1): AlgoPerf's search for `wmt`.

    The search keeps `beam_size` live hypotheses and as many finished ones, which a length penalty ranks. A row is
    done when none of its live ones can still better a finished one. Behind the end of a sentence lies padding; a
    translation without end is as long as it may be.
    """
    config = network.config
    source = encoded_source(network, params, inputs_BS)
    keys_BNSH = source.layers[0].keys
    beams = first_beams(config, len(inputs_BS), keys_BNSH.dtype)
    caches = [first_cache(config, keys_BNSH) for _ in source.layers]

    def goes_on(state: tuple[Array, Beams, list[KeysValues]]) -> Array:
        place, beams, _ = state
        return (place < config.max_length - 1) & ~all_done(config, beams, source.is_row_B)

    def longer(state: tuple[Array, Beams, list[KeysValues]]) -> tuple[Array, Beams, list[KeysValues]]:
        place, beams, caches = state
        return place + 1, *step(network, params, source, caches, beams, place)

    _, beams, _ = jax.lax.while_loop(goes_on, longer, (jnp.int32(0), beams, caches))
    finished_B1 = beams.scores_BK[:, :1] > -jnp.inf
    return jnp.where(finished_B1, beams.finished_BKP[:, 0], beams.live_BKP[:, 0])[:, 1:]


def encoded_source(network: "Network", params: Any, inputs_BS: Array) -> Source:
    """The encoder's work, done once for all beams and steps."""
    mask_B1SS = attention_mask(inputs_BS, inputs_BS, None, None)
    is_token_BS = inputs_BS != PADDING
    is_row_B = is_token_BS.any(1)
    mask_B11S = (is_token_BS | ~is_row_B[:, None])[:, None, None]
    encoded_BSD = network.apply({"params": params}, inputs_BS, mask_B1SS, method="encoded")
    layers: Any = network.apply({"params": params}, encoded_BSD, method="source")
    return Source(layers, mask_B11S, is_row_B)


def first_beams(config: Transformer, rows: int, dtype: Any) -> Beams:
    """One live hypothesis, the start symbol; the others are impossible, so that the first step leaves it only once."""
    beams, length = config.beam_size, config.max_length
    tokens_BKP = jnp.full((rows, beams, length), PADDING, jnp.int32)
    impossible_BK = jnp.full((rows, beams), -jnp.inf, dtype)
    visible_BKPK = jnp.zeros((rows, beams, length, beams), bool)
    return Beams(tokens_BKP, impossible_BK.at[:, 0].set(0.0), visible_BKPK, tokens_BKP, impossible_BK)


def first_cache(config: Transformer, like_BNSH: Array) -> KeysValues:
    """Room for one layer's keys and values of all places and beams, each (B, N, P * K, H)."""
    rows, heads, _, width = like_BNSH.shape
    zeros = jnp.zeros((rows, heads, config.max_length * config.beam_size, width), like_BNSH.dtype)
    return KeysValues(zeros, zeros)


def step(
    network: "Network",
    params: Any,
    source: Source,
    caches: Sequence[KeysValues],
    beams: Beams,
    place: Array,
) -> tuple[Beams, list[KeysValues]]:
    """The next token of every live hypothesis, and the caches with this place's keys and values.

    place: of the last token.
    """
    rows, num_beams, length = beams.live_BKP.shape
    own_BKK = jnp.broadcast_to(jnp.eye(num_beams, dtype=bool), (rows, num_beams, num_beams))
    visible_BKPK = beams.visible_BKPK.at[:, :, place].set(own_BKK)
    result: Any = network.apply(
        {"params": params},
        beams.live_BKP[:, :, place],
        place,
        source.layers,
        visible_BKPK.reshape(rows, 1, num_beams, length * num_beams),
        source.mask_B11S,
        caches=[Cache(cache, place * num_beams) for cache in caches],
        method="decoded",
    )
    logits_BKV, kept = result
    return advanced(beams._replace(visible_BKPK=visible_BKPK), logits_BKV, place), kept


def advanced(beams: Beams, logits_BKV: Array, place: Array) -> Beams:
    """The best hypotheses one token longer.

    Of twice as many candidates as beams no more than half can end, so that all live ones stay possible.
    """
    rows, num_beams, num_tokens = logits_BKV.shape
    totals_BKV = beams.log_probabilities_BK[..., None] + jax.nn.log_softmax(logits_BKV)
    totals_BC, candidates_BC = jax.lax.top_k(totals_BKV.reshape(rows, -1), 2 * num_beams)
    parents_BC, tokens_BC = candidates_BC // num_tokens, candidates_BC % num_tokens
    longer_BCP = chosen(beams.live_BKP, parents_BC).at[:, :, place + 1].set(tokens_BC)
    ends_BC = tokens_BC == END_OF_SENTENCE

    live_BK, order_BK = jax.lax.top_k(jnp.where(ends_BC, -jnp.inf, totals_BC), num_beams)
    scores_BC = totals_BC / length_penalty((place + 1).astype(totals_BC.dtype))
    all_scores = jnp.concatenate((beams.scores_BK, jnp.where(ends_BC, scores_BC, -jnp.inf)), 1)
    scores_BK, best_BK = jax.lax.top_k(all_scores, num_beams)
    return Beams(
        live_BKP=chosen(longer_BCP, order_BK),
        log_probabilities_BK=live_BK,
        visible_BKPK=chosen(beams.visible_BKPK, chosen(parents_BC, order_BK)),
        finished_BKP=chosen(jnp.concatenate((beams.finished_BKP, longer_BCP), 1), best_BK),
        scores_BK=scores_BK,
    )


def chosen(of_hypotheses: Array, indices_BK: Array) -> Array:
    """What belongs to the chosen hypotheses of each row; of_hypotheses: (B, hypotheses, ...)."""
    return of_hypotheses[jnp.arange(len(indices_BK))[:, None], indices_BK]


def all_done(config: Transformer, beams: Beams, is_row_B: Array) -> Array:
    """Whether no row's live hypotheses can better the worst finished one, however long they get.

    A row whose probabilities are not numbers is done as well.
    """
    bound_B = beams.log_probabilities_BK[:, 0] / length_penalty(float(config.max_length))
    goes_on_B = is_row_B & (bound_B >= beams.scores_BK.min(1))
    done: Array = ~goes_on_B.any()
    return done
