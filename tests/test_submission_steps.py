"""The shipped update rules: torch, JAX and a float64 statement of each, in lockstep on the same gradients."""

import copy as copy_module
import math
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from timetrial.engine.algoperf_jax import replicate
from timetrial.engine.search import load_space, trial_points
from timetrial.engine.submission import load
from timetrial.submissions import SUBMISSIONS, schedules, schedules_jax
from timetrial.submissions.nadamw.nadamw_torch import NAdamW
from timetrial.submissions.training_jax import make_train_step
from timetrial.submissions.training_torch import backward, clip_gradient, set_learning_rate

STEPS = 100
SHAPES = {"w": (7, 5), "b": (5,), "scale": ()}


def nadamw(h, rate):
    def step(w, g, state, t):
        b1, b2 = 1.0 - h.one_minus_beta1, h.beta2
        state["m"] = b1 * state["m"] + (1 - b1) * g
        state["v"] = b2 * state["v"] + (1 - b2) * g**2
        ahead = (b1 * state["m"] + (1 - b1) * g) / (1 - b1**t)
        return w - rate(t - 1) * (ahead / (np.sqrt(state["v"] / (1 - b2**t)) + 1e-8) + h.weight_decay * w)

    return step


def adamw(h, rate):
    def step(w, g, state, t):
        b1, b2 = 1.0 - h.one_minus_beta1, h.beta2
        state["m"] = b1 * state["m"] + (1 - b1) * g
        state["v"] = b2 * state["v"] + (1 - b2) * g**2
        m, v = state["m"] / (1 - b1**t), state["v"] / (1 - b2**t)
        return w - rate(t - 1) * (m / (np.sqrt(v) + 1e-8) + h.weight_decay * w)

    return step


def nesterov(h, rate):
    def step(w, g, state, t):
        g = g + h.weight_decay * w
        state["m"] = (1.0 - h.one_minus_beta1) * state["m"] + g
        return w - rate(t - 1) * (g + (1.0 - h.one_minus_beta1) * state["m"])

    return step


RULES = {
    "nadamw": (nadamw, schedules.warmup_cosine),
    "adamw": (adamw, schedules.warmup_cosine),
    "nesterov": (nesterov, schedules.warmup_linear),
}


class Given:
    """A workload whose gradient is what the batch says: the loss is the inner product with it."""

    step_hint = 80  # the last 20 of the 100 steps lie beyond it
    metrics_logger = None

    def model_fn(
        self, params, augmented_and_preprocessed_input_batch, model_state, mode, rng, update_batch_norm
    ):
        items = params.named_parameters() if isinstance(params, torch.nn.Module) else params.items()
        gradient = augmented_and_preprocessed_input_batch["inputs"]
        return sum((value * gradient[name]).sum() for name, value in items), model_state

    def loss_fn(self, label_batch, logits_batch, mask_batch, label_smoothing):
        one = torch.ones(()) if isinstance(logits_batch, torch.Tensor) else jnp.ones(())
        return {"summed": logits_batch, "n_valid_examples": one, "per_example": None}


def hyperparameters_of(name):
    first = trial_points(
        load_space(SUBMISSIONS[name] / "tuning_search_space.json"),
        search="quasirandom",
        studies=1,
        trials=1,
        seed=4,
    )[0][0]
    return SimpleNamespace(**{key: value for key, value in first.items() if key != "dropout_rate"})


def gradients(step):
    generator = np.random.Generator(np.random.Philox(step))
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def rest_of(step):
    """The arguments of update_params that these submissions do not read."""
    return {
        "current_params_types": None,
        "loss_type": None,
        "eval_results": [],
        "global_step": step,
        "rng": np.zeros(2, np.uint32),
    }


def run_torch(name, start, h):
    functions = load(SUBMISSIONS[name], "torch").functions
    model = torch.nn.Module()
    for key, value in start.items():
        model.register_parameter(key, torch.nn.Parameter(torch.tensor(value)))
    state = functions.init_optimizer_state(Given(), model, None, h, None)
    for step in range(STEPS):
        inputs = {key: torch.tensor(value) for key, value in gradients(step).items()}
        state, model, _ = functions.update_params(
            workload=Given(),
            current_param_container=model,
            model_state=None,
            hyperparameters=h,
            batch={"inputs": inputs, "targets": None},
            optimizer_state=state,
            **rest_of(step),
        )
        yield {key: value.detach().numpy().copy() for key, value in model.named_parameters()}


def run_jax(name, start, h):
    functions = load(SUBMISSIONS[name], "jax").functions
    params = replicate(start)  # as a workload gives them; otherwise the second step is traced anew
    state = functions.init_optimizer_state(Given(), params, None, h, None)
    for step in range(STEPS):
        # One row, because the batch is split along its first axis.
        inputs = {key: value[None] for key, value in gradients(step).items()}
        state, params, _ = functions.update_params(
            workload=Given(),
            current_param_container=params,
            model_state=None,
            hyperparameters=h,
            batch={"inputs": inputs, "targets": np.zeros(1, np.float32)},
            optimizer_state=state,
            **rest_of(step),
        )
        yield {key: np.asarray(value) for key, value in params.items()}


def run_float64(name, start, h):
    rule, schedule = RULES[name]
    step = rule(h, schedule(h, Given.step_hint))
    params = {key: value.astype(np.float64) for key, value in start.items()}
    state = {key: {"m": np.zeros(shape), "v": np.zeros(shape)} for key, shape in SHAPES.items()}
    for t in range(1, STEPS + 1):
        given = gradients(t - 1)
        params = {key: step(params[key], given[key].astype(np.float64), state[key], t) for key in params}
        yield params


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_both_frameworks_follow_the_rule(name):
    h = hyperparameters_of(name)
    start = gradients(12345)
    runs = zip(run_torch(name, start, h), run_jax(name, start, h), run_float64(name, start, h), strict=True)
    moved = 0.0
    for step, (in_torch, in_jax, truth) in enumerate(runs):
        for key in SHAPES:
            moved = max(moved, np.abs(truth[key] - start[key]).max())
            bound = 4e-6 * (1.0 + moved)
            np.testing.assert_allclose(in_torch[key], truth[key], rtol=0, atol=bound, err_msg=f"{key} {step}")
            np.testing.assert_allclose(in_jax[key], truth[key], rtol=0, atol=bound, err_msg=f"{key} {step}")
    assert moved > 1e-3


def test_the_first_step_of_nadamw_is_algoperfs():
    """With t = 1 the direction is (1 + b1) sign(g); torch.optim.NAdam and optax.nadamw give less."""
    p = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    p.grad = torch.tensor([0.3, -2.0])
    NAdamW([p], lr=0.1, betas=(0.9, 0.99)).step()
    np.testing.assert_allclose(p.detach().numpy(), [1 - 0.19, 1 + 0.19], rtol=1e-6)
    shorter, _ = optax.scale_by_adam(0.9, 0.99, nesterov=True).update(
        jnp.array([0.3, -2.0]), optax.scale_by_adam().init(jnp.zeros(2))
    )
    assert float(shorter[0]) < 1.5


def test_nadamw_survives_a_checkpoint():
    def make():
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        return model, NAdamW(model.parameters(), lr=0.1, betas=(0.9, 0.99), weight_decay=0.1)

    def step(model, optimizer, seed):
        generator = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.step()

    model, optimizer = make()
    for seed in range(3):
        step(model, optimizer, seed)
    copy, restored = make()
    copy.load_state_dict(model.state_dict())
    restored.load_state_dict(copy_module.deepcopy(optimizer.state_dict()))
    step(model, optimizer, 9), step(copy, restored, 9)
    for a, b in zip(model.parameters(), copy.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="calls no closure"):
        optimizer.step(lambda: 0.0)


@settings(max_examples=25, deadline=None)
@given(
    warmup_factor=st.sampled_from([0.0, 0.02, 0.1, 1.0]),
    step_hint=st.integers(1, 300),
    decay_steps_factor=st.sampled_from([0.5, 0.9, 1.0]),
)
def test_schedules_agree_and_never_rise_again(warmup_factor, step_hint, decay_steps_factor):
    h = SimpleNamespace(
        learning_rate=2.0,
        warmup_factor=warmup_factor,
        decay_steps_factor=decay_steps_factor,
        end_factor=0.01,
    )
    steps = np.arange(320)  # of one length, so that JAX compiles once
    warmup_steps = int(warmup_factor * step_hint)
    for name, last in (("warmup_cosine", 0.0), ("warmup_linear", 0.02)):
        ours = np.array([getattr(schedules, name)(h, step_hint)(int(step)) for step in steps])
        theirs = np.asarray(getattr(schedules_jax, name)(h, step_hint)(steps))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)
        assert ours[warmup_steps] == pytest.approx(2.0)
        assert (np.diff(ours[: warmup_steps + 1]) > 0).all()
        assert (np.diff(ours[warmup_steps:]) <= 0).all()
        if warmup_steps < step_hint:
            assert ours[step_hint] == pytest.approx(last, abs=1e-12)


def test_half_way_down_the_cosine():
    h = SimpleNamespace(learning_rate=1.0, warmup_factor=0.1)
    rate = schedules.warmup_cosine(h, 100)
    assert [rate(step) for step in (0, 5, 10, 55, 100, 150)] == pytest.approx(
        [0, 0.5, 1, 0.5, 0, 0], abs=1e-12
    )
    assert rate(40) == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))


def test_clipping_is_the_same_in_both_frameworks():
    start, given_gradient = gradients(1), gradients(2)
    norm = np.sqrt(sum((value.astype(np.float64) ** 2).sum() for value in given_gradient.values()))
    for limit in (0.5, 1000.0):
        h = SimpleNamespace(grad_clip=limit)
        factor = min(limit / (norm + 1e-6), 1.0)
        model = torch.nn.Module()
        for key, value in start.items():
            model.register_parameter(key, torch.nn.Parameter(torch.tensor(value)))
        inputs = {key: torch.tensor(value) for key, value in given_gradient.items()}
        backward(Given(), model, {"inputs": inputs, "targets": None}, None, h)
        assert float(clip_gradient(model, h)) == pytest.approx(norm, rel=1e-5)
        step = make_train_step(Given(), optax.sgd(1.0), h)
        params = {key: jnp.array(value) for key, value in start.items()}
        batch = {
            "inputs": {key: value[None] for key, value in given_gradient.items()},
            "targets": np.zeros(1, np.float32),
        }
        _, moved, _, _, jax_norm = step(
            optax.sgd(1.0).init(params), params, None, batch, np.zeros(2, np.uint32)
        )
        assert float(jax_norm) == pytest.approx(norm, rel=1e-5)
        for key, parameter in model.named_parameters():
            expected = factor * given_gradient[key].astype(np.float64)
            np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=1e-5)
            np.testing.assert_allclose(start[key] - np.asarray(moved[key]), expected, rtol=1e-3, atol=1e-6)


def test_every_group_gets_the_learning_rate():
    p = torch.nn.Parameter(torch.zeros(1))
    q = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [p], "lr": 1.0}, {"params": [q], "lr": 2.0}])
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


@pytest.mark.parametrize("name", SUBMISSIONS)
def test_the_jax_step_is_traced_once(name, monkeypatch):
    traces = []
    monkeypatch.setattr(
        Given, "loss_fn", lambda *a, loss=Given.loss_fn, **k: traces.append(1) or loss(*a, **k)
    )
    runs = run_jax(name, gradients(0), hyperparameters_of(name))
    for _ in range(4):
        next(runs)
    assert len(traces) == 1
