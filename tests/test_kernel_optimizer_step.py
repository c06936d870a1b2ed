"""Optimizers over many tensors, in one launch (under Triton's interpreter) and by torch, against torch's and optax's.

Truth is a float64 statement of each rule, and nothing may be further from it than torch's or optax's own is, but for
SLACK.
"""

import copy
import os
from itertools import islice
from unittest import mock

import numpy as np
import optax
import pytest
import torch

with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
    from timetrial.kernels import multi_tensor_optimizers_torch as subject
    from timetrial.kernels import optimizer_step_triton

from timetrial.submissions.nadamw.nadamw_torch import NAdamW

STEPS = 100
FEW_STEPS = 25  # under the interpreter, of rules that do not count them
SLACK = STEPS * 2.0**-24  # each step rounds weights of size 1
SHAPES = ((7, 5), (0, 3))
BETAS, DECAY, RATE = (0.9, 0.98), 0.1, 1e-2
MOMENTUM = {"momentum": BETAS[0], "weight_decay": DECAY}
DECOUPLED = {"betas": BETAS, "weight_decay": DECAY}
OURS = {
    "adamw": lambda p, **rest: subject.AdamW(p, **DECOUPLED, **rest),
    "nadamw": lambda p, **rest: subject.NAdamW(p, **DECOUPLED, **rest),
    "sgd": lambda p, **rest: subject.SGD(p, **MOMENTUM, **rest),
    "nesterov": lambda p, **rest: subject.SGD(p, **MOMENTUM, nesterov=True, **rest),
    "lion": lambda p, **rest: subject.Lion(p, **DECOUPLED, **rest),
}
THEIRS = {
    "adamw": lambda p, **rest: torch.optim.AdamW(p, **DECOUPLED, **rest),
    "nadamw": lambda p, **rest: NAdamW(p, **DECOUPLED, **rest),
    "sgd": lambda p, **rest: torch.optim.SGD(p, **MOMENTUM, **rest),
    "nesterov": lambda p, **rest: torch.optim.SGD(p, **MOMENTUM, nesterov=True, **rest),
}


@pytest.fixture(params=["plain", "fused"])
def form(request, monkeypatch):
    if request.param == "fused":
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        monkeypatch.setattr(subject.MultiTensorOptimizer, "why_not", lambda self: None)
    return request.param


def leaves(shapes=SHAPES, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def set_gradients(parameters, step):
    generator = torch.Generator().manual_seed(step + 1)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def stated(name, w, g, m, v, t, rate=RATE):
    """The rule in float64, of one parameter; its new value and moments."""
    b1, b2 = BETAS
    if name == "lion":
        direction = np.sign(b1 * m + (1 - b1) * g)
        return w - rate * (direction + DECAY * w), b2 * m + (1 - b2) * g, v
    if name in ("sgd", "nesterov"):
        g = g + DECAY * w
        m = b1 * m + g
        return w - rate * (g + b1 * m if name == "nesterov" else m), m, v
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    ahead = b1 * m + (1 - b1) * g if name == "nadamw" else m
    return w - rate * (ahead / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + 1e-8) + DECAY * w), m, v


def truths(name, max_norm=None):
    states = [(p.detach().double().numpy(), 0.0, 0.0) for p in leaves()]
    given = leaves()
    for step in range(STEPS):
        set_gradients(given, step)
        gradients = [p.grad.double().numpy() for p in given]
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        factor = 1.0 if max_norm is None else min(1.0, max_norm / (norm + 1e-6))
        states = [
            stated(name, *state[:1], factor * g, *state[1:], step + 1)
            for state, g in zip(states, gradients, strict=True)
        ]
        yield [state[0] for state in states]


def values(name, makers, max_norm=None):
    """Parameters after each step; by `clip_grad_norm_` where the optimizer does not clip itself."""
    parameters = leaves()
    ours = makers is OURS
    optimizer = makers[name](parameters, lr=RATE, **({"max_norm": max_norm} if ours else {}))
    for step in range(STEPS):
        set_gradients(parameters, step)
        if max_norm is not None and not ours:
            torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        optimizer.step()
        yield [p.detach().numpy().astype(np.float64) for p in parameters]


def optax_lion():
    states = [p.detach().numpy() for p in leaves()]
    transform = optax.lion(RATE, *BETAS, weight_decay=DECAY)
    state, given = transform.init(states), leaves()
    for step in range(STEPS):
        set_gradients(given, step)
        updates, state = transform.update([p.grad.numpy() for p in given], state, states)
        states = optax.apply_updates(states, updates)
        yield [np.asarray(x, np.float64) for x in states]


def furthest(some, others):
    return max(abs(a - b).max() for a, b in zip(some, others, strict=True) if a.size)


@pytest.mark.parametrize("name", OURS)
def test_every_step_is_as_exact_as_torchs(form, name):
    clip = 6.0 if name in ("nadamw", "nesterov") else None  # of norms about 6
    theirs = optax_lion() if name == "lion" else values(name, THEIRS, clip)
    steps = STEPS if form == "plain" or name in ("adamw", "nadamw") else FEW_STEPS
    for own, exact, reference in islice(
        zip(values(name, OURS, clip), truths(name, clip), theirs, strict=True), steps
    ):
        assert furthest(own, exact) <= furthest(reference, exact) + SLACK


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_of_any_size_and_place_are_stepped_and_nothing_beside_them(form, dtype):
    block = optimizer_step_triton.BLOCK
    sizes = (1, 0, block - 1, block, 2 * block + 3)
    buffer = torch.full((sum(sizes) + 2 * len(sizes),), 7.0, dtype=dtype)
    parameters, first = [], 1  # beside each other, with a 7 between: at addresses that are no multiples of 16
    for size in sizes:
        parameters.append(buffer[first : first + size].normal_().requires_grad_())
        first += size + 2
    before = [p.detach().double().numpy() for p in parameters]
    set_gradients(parameters, 0)
    gradients = [p.grad.double().numpy() for p in parameters]
    subject.NAdamW(parameters, lr=RATE, **DECOUPLED).step()
    for p, w, g in zip(parameters, before, gradients, strict=True):
        exact = torch.from_numpy(stated("nadamw", w, g, 0.0, 0.0, 1)[0])
        tolerance = SLACK if dtype == torch.float32 else 2**-7  # the interpreter cuts bfloat16 off
        torch.testing.assert_close(p.detach().double(), exact, rtol=tolerance, atol=SLACK)
    assert (buffer == 7.0).sum() >= 2 * len(sizes)
    assert all(buffer[sum(sizes[:i]) + 2 * i] == 7.0 for i in range(len(sizes)))


def test_a_step_takes_gradients_from_where_they_are_and_leaves_alone_what_has_none(form):
    parameters, twins = leaves(((3,), (4,), (2, 3))), leaves(((3,), (4,), (2, 3)))
    ours = subject.SGD(parameters, lr=RATE, **MOMENTUM)
    theirs = torch.optim.SGD(twins, lr=RATE, **MOMENTUM)
    kept = []
    for step, present in enumerate([(0, 1), (0, 1, 2), (1,), (0, 1, 2)]):
        for some in (parameters, twins):
            set_gradients(some, step)
            for place, p in enumerate(some):
                p.grad = p.grad if place in present else None
        kept.append([p.grad for p in parameters])  # so that no gradient lies where one was
        if parameters[2].grad is not None:
            parameters[2].grad = parameters[2].grad.t().contiguous().t()  # of other strides
        ours.step()
        theirs.step()
        for p, twin in zip(parameters, twins, strict=True):
            torch.testing.assert_close(p, twin, rtol=0, atol=SLACK)


def test_groups_share_one_norm_and_have_numbers_of_their_own(form):
    parameters, twins = leaves(((5,), (6,), (7,))), leaves(((5,), (6,), (7,)))
    numbers = ({"lr": torch.tensor(0.1)}, {"lr": 0.02, "betas": (0.5, 0.6), "weight_decay": 0.0})
    ours, theirs = (
        optimizer(
            [{"params": some[:1], **numbers[0]}, {"params": some[1:], **numbers[1]}],
            weight_decay=DECAY,
            **limit,
        )
        for optimizer, some, limit in (
            (subject.AdamW, parameters, {"max_norm": 1.5}),
            (torch.optim.AdamW, twins, {}),
        )
    )
    for step in range(3):
        set_gradients(parameters, step)
        set_gradients(twins, step)
        ours.step()
        norm = torch.nn.utils.clip_grad_norm_(twins, 1.5)
        theirs.step()
        torch.testing.assert_close(ours.gradient_norm, norm)
        for p, twin in zip(parameters, twins, strict=True):
            torch.testing.assert_close(p, twin, rtol=0, atol=SLACK)


def test_a_gradient_that_is_no_number_spoils_the_norm_and_every_parameter(form):
    parameters = leaves(((3,), (2,)))
    optimizer = subject.SGD(parameters, max_norm=1.0)
    set_gradients(parameters, 0)
    parameters[0].grad[1] = torch.nan
    optimizer.step()
    assert optimizer.gradient_norm.isnan()
    assert all(p.isnan().all() for p in parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_resumed_optimizer_goes_on_to_the_same_bits(form, dtype):
    straight = leaves(dtype=dtype)
    optimizer = subject.NAdamW(straight, lr=RATE, **DECOUPLED)
    for step in range(4):
        if step == 2:
            resumed = [p.detach().clone().requires_grad_() for p in straight]
            other = subject.NAdamW(resumed, lr=1.0)
            other.load_state_dict(optimizer.state_dict())
        set_gradients(straight, step)
        optimizer.step()
        if step >= 2:
            set_gradients(resumed, step)
            other.step()
    assert all(torch.equal(*pair) for pair in zip(straight, resumed, strict=True))
    assert other.state[resumed[0]]["second"].dtype == torch.float32
    assert all(torch.equal(*(o.param_groups[0]["t"] for o in pair)) for pair in [(optimizer, other)])


def test_a_copied_optimizer_steps_its_own_parameters(form):
    parameters = leaves()
    optimizer = subject.SGD(parameters, lr=RATE, **MOMENTUM, max_norm=0.5)
    set_gradients(parameters, 0)
    optimizer.step()
    before = [p.detach().clone() for p in parameters]
    others, other = copy.deepcopy((parameters, optimizer))
    set_gradients(others, 1)
    other.step()
    assert all(torch.equal(*pair) for pair in zip(parameters, before, strict=True))
    set_gradients(parameters, 1)
    optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(parameters, others, strict=True))
    assert torch.equal(other.gradient_norm, optimizer.gradient_norm)


def test_autograd_is_told_that_parameters_have_changed(form):
    (p,) = leaves(((3,),))
    loss = (p * p).sum()
    p.grad = torch.ones(3)
    subject.Lion([p]).step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([torch.zeros(2), torch.zeros(2, dtype=torch.bfloat16)], "one dtype"),
        ([torch.zeros(2, dtype=torch.float64)], "float64"),
        ([torch.zeros(2), torch.zeros(4)[::2]], "parameter 1 of a group has gaps"),
        ([torch.zeros(2), torch.zeros(2, device="meta")], "one device"),
    ],
)
def test_parameters_that_cannot_be_stepped_are_refused(parameters, message):
    with pytest.raises(ValueError, match=message):
        subject.AdamW(parameters)
    with pytest.raises(ValueError, match="closure"):
        subject.AdamW([torch.zeros(1)]).step(lambda: None)


def test_without_a_gpu_it_is_said_why_a_step_is_not_one_launch():
    assert "cpu" in subject.AdamW([torch.zeros(1)]).why_not()
