"""Beam search of a transformer's translations in torch.

Shapes: B row, K beam, P place in a translation (0 is the start symbol), S position of the source, V token, N head,
H head width.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from timetrial.workloads.models.transformer import END_OF_SENTENCE, PADDING, Transformer, length_penalty
from timetrial.workloads.models.transformer_layers_torch import Cache, KeysValues, attention_mask

if TYPE_CHECKING:
    from timetrial.workloads.models.transformer_torch import Network

STEPS_BETWEEN_CHECKS = 8  # of whether all rows are done, for which the host must wait for the device


class Beams(NamedTuple):
    """The best hypotheses of every row so far, from best to worst.

    No keys and values are moved when a beam goes on from another's hypothesis: they stay in the slot of the beam
    that made them, and `visible` says which slots hold a beam's own past.
    """

    live_BKP: Tensor  # tokens
    log_probabilities_BK: Tensor  # of the live ones
    visible_BKPK: Tensor  # bool: at each place, which slot's keys and values the live hypothesis goes back to
    finished_BKP: Tensor  # tokens
    scores_BK: Tensor  # of the finished ones; -infinity where there is none yet


class Source(NamedTuple):
    """What the decoder attends to; a row of padding is no row."""

    layers: Sequence[KeysValues]
    mask_B11S: Tensor
    is_row_B: Tensor


def translations(network: "Network", inputs_BS: Tensor) -> Tensor:
    """The best translation found of each row, in tokens (B, max_length - 1): AlgoPerf's search for `wmt`.

    The search keeps `beam_size` live hypotheses and as many finished ones, which a length penalty ranks. A row is
    done when none of its live ones can still better a finished one. Behind the end of a sentence lies padding; a
    translation without end is as long as it may be.
    """
    config = network.config
    source = encoded_source(network, inputs_BS)
    keys_BNSH = source.layers[0].keys
    beams = first_beams(config, len(inputs_BS), keys_BNSH)
    caches = [first_cache(config, keys_BNSH) for _ in source.layers]
    places = torch.arange(config.max_length, device=inputs_BS.device).split(1)
    last = config.max_length - 1
    for first in range(0, last, STEPS_BETWEEN_CHECKS):
        if first and bool(all_done(config, beams, source.is_row_B)):
            break
        until = min(first + STEPS_BETWEEN_CHECKS, last)
        for place in places[first:until]:
            beams = step(network, source, caches, beams, place, until)
    finished_B1 = beams.scores_BK[:, :1] > -math.inf
    return torch.where(finished_B1, beams.finished_BKP[:, 0], beams.live_BKP[:, 0])[:, 1:]


def encoded_source(network: "Network", inputs_BS: Tensor) -> Source:
    """The encoder's work, done once for all beams and steps."""
    mask_B1SS = attention_mask(inputs_BS, inputs_BS, None, None)
    is_token_BS = inputs_BS != PADDING
    is_row_B = is_token_BS.any(1)
    mask_B11S = (is_token_BS | ~is_row_B[:, None])[:, None, None]
    return Source(network.source(network.encoded(inputs_BS, mask_B1SS)), mask_B11S, is_row_B)


def first_beams(config: Transformer, rows: int, like: Tensor) -> Beams:
    """One live hypothesis, the start symbol; the others are impossible, so that the first step leaves it only once.

    like: a tensor of the device and the dtype to have.
    """
    beams, length = config.beam_size, config.max_length
    tokens_BKP = torch.full((rows, beams, length), PADDING, dtype=torch.int64, device=like.device)
    impossible_BK = like.new_full((rows, beams), -math.inf)
    log_probabilities_BK = impossible_BK.clone()
    log_probabilities_BK[:, 0] = 0.0
    visible_BKPK = torch.zeros((rows, beams, length, beams), dtype=torch.bool, device=like.device)
    return Beams(tokens_BKP, log_probabilities_BK, visible_BKPK, tokens_BKP.clone(), impossible_BK)


def first_cache(config: Transformer, like_BNSH: Tensor) -> KeysValues:
    """Room for one layer's keys and values of all places and beams, each (B, N, P * K, H)."""
    rows, heads, _, width = like_BNSH.shape
    shape = (rows, heads, config.max_length * config.beam_size, width)
    return KeysValues(like_BNSH.new_zeros(shape), like_BNSH.new_zeros(shape))


def step(
    network: "Network",
    source: Source,
    caches: Sequence[KeysValues],
    beams: Beams,
    place: Tensor,
    until: int,
) -> Beams:
    """The next token of every live hypothesis.

    place: of the last token, one integer on the device, (1,). until: a bound of it.
    Writes this place's keys and values into `caches`.
    """
    num_beams = beams.live_BKP.shape[1]
    slots = torch.arange(num_beams, device=place.device)
    own_BK1K = (slots[:, None] == slots)[:, None].expand(len(beams.live_BKP), -1, -1, -1)
    visible_BKPK = beams.visible_BKPK.index_copy(2, place, own_BK1K)
    logits_BKV = network.decoded(
        beams.live_BKP.index_select(2, place).squeeze(2),
        place,
        source.layers,
        visible_BKPK[:, :, :until].flatten(2)[:, None],
        source.mask_B11S,
        caches=[
            Cache(
                cache.keys[:, :, : until * num_beams],
                cache.values[:, :, : until * num_beams],
                place * num_beams + slots,
            )
            for cache in caches
        ],
    )
    return advanced(beams._replace(visible_BKPK=visible_BKPK), logits_BKV, place)


def advanced(beams: Beams, logits_BKV: Tensor, place: Tensor) -> Beams:
    """The best hypotheses one token longer.

    Of twice as many candidates as beams no more than half can end, so that all live ones stay possible.
    """
    num_beams, num_tokens = logits_BKV.shape[1:]
    totals_BKV = beams.log_probabilities_BK[..., None] + logits_BKV.log_softmax(-1)
    totals_BC, candidates_BC = totals_BKV.flatten(1).topk(2 * num_beams)
    parents_BC, tokens_BC = candidates_BC // num_tokens, candidates_BC % num_tokens
    longer_BCP = chosen(beams.live_BKP, parents_BC).index_copy(2, place + 1, tokens_BC[..., None])
    ends_BC = tokens_BC == END_OF_SENTENCE

    live_BK, order_BK = totals_BC.masked_fill(ends_BC, -math.inf).topk(num_beams)
    scores_BC = totals_BC / length_penalty((place + 1).to(totals_BC.dtype))
    all_scores = torch.cat((beams.scores_BK, scores_BC.masked_fill(~ends_BC, -math.inf)), 1)
    scores_BK, best_BK = all_scores.topk(num_beams)
    return Beams(
        live_BKP=chosen(longer_BCP, order_BK),
        log_probabilities_BK=live_BK,
        visible_BKPK=chosen(beams.visible_BKPK, parents_BC.gather(1, order_BK)),
        finished_BKP=chosen(torch.cat((beams.finished_BKP, longer_BCP), 1), best_BK),
        scores_BK=scores_BK,
    )


def chosen(of_hypotheses: Tensor, indices_BK: Tensor) -> Tensor:
    """What belongs to the chosen hypotheses of each row; of_hypotheses: (B, hypotheses, ...)."""
    rows_B1 = torch.arange(len(indices_BK), device=indices_BK.device)[:, None]
    return of_hypotheses[rows_B1, indices_BK]


def all_done(config: Transformer, beams: Beams, is_row_B: Tensor) -> Tensor:
    """Whether no row's live hypotheses can better the worst finished one, however long they get.

    A row whose probabilities are not numbers is done as well.
    """
    bound_B = beams.log_probabilities_BK[:, 0] / length_penalty(float(config.max_length))
    goes_on_B = is_row_B & (bound_B >= beams.scores_BK.min(1).values)
    done: Tensor = ~goes_on_B.any()
    return done
