"""The Deep Speech network in both frameworks; its LSTM against torch's own, with packed sequences."""

import copy
from collections import Counter
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from timetrial.workloads.librispeech_deepspeech import (
    LIBRISPEECH_DEEPSPEECH,
    LIBRISPEECH_DEEPSPEECH_NO_RESNET,
    LIBRISPEECH_DEEPSPEECH_NORM_AND_SPEC_AUG,
    LIBRISPEECH_DEEPSPEECH_TANH,
)
from timetrial.workloads.models import deepspeech_jax, deepspeech_torch, lstm_torch
from timetrial.workloads.models.deepspeech import DeepSpeech
from timetrial.workloads.models.lstm_jax import LSTM, lstm_from_torch
from timetrial.workloads.models.lstm_torch import BiLSTM
from timetrial.workloads.models.speech_features import NO_MASKS, LogMel

KEY = np.array([0, 5], np.uint32)
TYPES = {"WEIGHT": 101, "BIAS": 55, "CONV_WEIGHT": 2, "BATCH_NORM_SCALE": 9, "BATCH_NORM_BIAS": 9}
TYPES |= {"LAYER_NORM_SCALE": 1, "LAYER_NORM_BIAS": 1}
LAYER_NORMS = {"BATCH_NORM_SCALE": 0, "BATCH_NORM_BIAS": 0, "LAYER_NORM_SCALE": 9, "LAYER_NORM_BIAS": 9}
# Parameters, tensors in Flax, running averages, and types where they are not those of the first.
FULL = [
    (LIBRISPEECH_DEEPSPEECH, 18_381_312, 178, 9_216, {}),
    (LIBRISPEECH_DEEPSPEECH_TANH, 18_381_312, 178, 9_216, {}),
    (LIBRISPEECH_DEEPSPEECH_NO_RESNET, 18_381_312, 178, 9_216, {}),
    (LIBRISPEECH_DEEPSPEECH_NORM_AND_SPEC_AUG, 18_380_288, 176, 0, LAYER_NORMS),
]

mels = LogMel(window=40, hop=16, fft_size=64, means=(-6.0,) * 8, deviations=(3.5,) * 8)
tiny = partial(
    DeepSpeech,
    vocabulary=6,
    width=12,
    num_lstms=2,
    num_feed_forward=2,
    subsampling_channels=4,
    features=mels,
    spec_augment=NO_MASKS,
)
TINY = {
    "base": tiny(),
    "tanh": tiny(activation="tanh"),
    "no_resnet": tiny(residual=False),
    "layer_norm": tiny(layer_norm=True),
}
SAMPLES = 600  # 35 frames, of which the convolutions leave nine


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


@pytest.mark.parametrize(
    ("facts", "size", "tensors", "averages", "types"), FULL, ids=[facts.name for facts, *_ in FULL]
)
def test_full_size_parameters_are_algoperfs(facts, size, tensors, averages, types):
    with torch.device("meta"):
        module = deepspeech_torch.program(facts.model).module()
    program = deepspeech_jax.program(facts.model)
    params, state = jax.eval_shape(program.init, KEY)
    assert sum(p.numel() for p in module.parameters()) == facts.num_parameters == size
    # One tensor for four gates, and one for their four biases.
    assert len(list(module.parameters())) == tensors - 6 * 2 * 9
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == size
    assert len(jax.tree.leaves(params)) == tensors
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == averages
    assert sum(b.numel() for name, b in module.named_buffers() if "running" in name) == averages
    found = Counter(kind.name for kind in flat(dict(program.parameter_types)).values())
    assert found == {kind: count for kind, count in (TYPES | types).items() if count}


def test_the_gates_are_tensors_of_their_own_in_flax():
    params, _ = jax.eval_shape(deepspeech_jax.program(LIBRISPEECH_DEEPSPEECH.model).init, KEY)
    shapes = {name: leaf.shape for name, leaf in flat(params["BatchRNN_5"]["LSTM_0"]["backward"]).items()}
    wanted = {f"i{gate}/kernel": (512, 256) for gate in "ifgo"}
    wanted |= {f"h{gate}/kernel": (256, 256) for gate in "ifgo"}
    assert shapes == wanted | {f"h{gate}/bias": (256,) for gate in "ifgo"}


# ---- the LSTM

LENGTHS = torch.tensor([9, 1, 4, 9, 6])
PADDING = (torch.arange(9) >= LENGTHS[:, None]).double()


@cache
def lstm():
    """(B, T, D) frames and a layer of float64 weights that are not small."""
    torch.manual_seed(0)
    layer = BiLSTM(6, 4).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += torch.randn_like(parameter)
    return torch.randn(5, 9, 6, dtype=torch.float64), layer


def packed_lstm():
    """nn.LSTM with the same weights."""
    _, layer = lstm()
    theirs = nn.LSTM(6, 4, batch_first=True, bidirectional=True).double()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.zero_()
    theirs.load_state_dict(layer.state_dict(), strict=False)
    return theirs


def test_the_lstm_is_torchs_with_packed_sequences():
    frames, layer = lstm()
    ours, theirs = frames.clone().requires_grad_(), frames.clone().requires_grad_()
    packed = packed_lstm()
    out, _ = packed(pack_padded_sequence(theirs, LENGTHS, batch_first=True, enforce_sorted=False))
    wanted, _ = pad_packed_sequence(out, batch_first=True, total_length=9)
    got = layer(ours, PADDING)
    assert (got[PADDING == 1] == 0).all()
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-12)
    direction = torch.randn_like(got)
    layer.zero_grad()
    got.backward(direction)
    wanted.backward(direction)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-12)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, packed.get_parameter(name).grad, rtol=0, atol=1e-12)


def test_flaxs_lstm_is_the_same():
    frames, layer = lstm()
    params = lstm_from_torch({f"x.{name}": value.numpy() for name, value in layer.state_dict().items()}, "x")
    with jax.enable_x64(True):
        compute = jax.jit(LSTM(4).apply)
        got = np.array(compute({"params": params}, frames.numpy(), PADDING.numpy()))
    np.testing.assert_allclose(got, layer(frames, PADDING).detach(), rtol=0, atol=1e-12)


def test_what_padding_holds_reaches_no_frame_of_an_lstm():
    frames, layer = lstm()
    filled = torch.where(PADDING[..., None] == 1, 1e3, frames)
    torch.testing.assert_close(layer(filled, PADDING), layer(frames, PADDING), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_lstm_in_lower_precision(dtype):
    frames, layer = lstm()
    single = copy.deepcopy(layer).float()
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        got = single(frames.float(), PADDING.float())
    assert got.dtype == dtype and (got[PADDING == 1] == 0).all()
    difference = (got.double() - layer(frames, PADDING)).abs().max()
    assert difference < (1e-5 if dtype == torch.float32 else 0.1)


@pytest.mark.skipif(not lstm_torch.HAS_ONEDNN, reason="torch is built without oneDNN")
def test_compilation_takes_onednns_lstm_as_it_is():
    """To the last bit, which an LSTM that is unrolled frame by frame is not."""
    frames, layer = lstm()
    layer, frames, padding = copy.deepcopy(layer).float(), frames.float(), PADDING.float()
    layer.zero_grad()
    compiled = torch.compile(copy.deepcopy(layer), fullgraph=True, backend="aot_eager")
    ours, theirs = frames.clone().requires_grad_(), frames.clone().requires_grad_()
    got, wanted = compiled(ours, padding), layer(theirs, padding)
    assert torch.equal(got, wanted)
    direction = torch.randn_like(got)
    got.backward(direction)
    wanted.backward(direction)
    assert torch.equal(ours.grad, theirs.grad)
    for name, parameter in layer.named_parameters():
        assert torch.equal(compiled.get_parameter(name).grad, parameter.grad)
    with torch.no_grad():
        assert torch.equal(compiled(frames, padding), wanted)


def test_cudnns_operators_infer_shapes():
    """What torch.compile is told of them; the operators themselves need a GPU."""
    layer = BiLSTM(6, 4).to("meta")
    frames = torch.empty(9, 5, 14, device="meta", requires_grad=True)
    weights = [weight for suffix in ("", "_reverse") for weight in layer._weights(suffix)]
    output, _, _ = lstm_torch._cudnn_lstm(frames, weights, True)
    assert output.shape == (9, 5, 8)
    output.sum().backward()
    assert frames.grad.shape == frames.shape
    assert all(parameter.grad.shape == parameter.shape for parameter in layer.parameters())


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # of Inductor's own
@pytest.mark.parametrize("compile_it", [False, True])
def test_cudnns_lstm_is_the_same(compile_it):
    frames, layer = lstm()
    on_gpu = copy.deepcopy(layer).cuda()
    call = torch.compile(on_gpu, fullgraph=True) if compile_it else on_gpu
    ours, theirs = frames.cuda().requires_grad_(), frames.clone().requires_grad_()
    got, wanted = call(ours, PADDING.cuda()), layer(theirs, PADDING)
    torch.testing.assert_close(got.cpu(), wanted, rtol=0, atol=1e-10)
    direction = torch.randn_like(wanted)
    layer.zero_grad()
    on_gpu.zero_grad()
    got.backward(direction.cuda())
    wanted.backward(direction)
    torch.testing.assert_close(ours.grad.cpu(), theirs.grad, rtol=0, atol=1e-10)
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(on_gpu.get_parameter(name).grad.cpu(), parameter.grad, rtol=0, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(call(ours, PADDING.cuda()).cpu(), wanted.detach(), rtol=0, atol=1e-10)


# ---- the network


def speech(seed=0, lengths=(600, 250, 400, 0)):
    """A batch in float64: loud noise, the last utterance nothing but padding."""
    rng = np.random.default_rng(seed)
    audio = rng.normal(size=(len(lengths), SAMPLES)) * 3000
    padding = (np.arange(SAMPLES) >= np.array(lengths)[:, None]).astype(float)
    labels = rng.integers(1, 6, size=(len(lengths), 2)).astype(np.int32)
    return {"inputs": (audio, padding), "targets": (labels, np.zeros((len(lengths), 2)))}


@cache
def scrambled(name):
    """The torch module in float64 with weights that nothing initialises to 0 or 1."""
    torch.manual_seed(0)
    module = deepspeech_torch.program(TINY[name]).module().double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
        for buffer_name, buffer in module.named_buffers():
            if buffer_name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
            elif buffer_name.endswith("running_mean"):
                buffer.normal_()
    return module


def torch_logits(name, module, batch):
    tensors = {key: tuple(map(torch.as_tensor, value)) for key, value in batch.items()}
    return deepspeech_torch.program(TINY[name]).logits(module, tensors, dropout_rate=0.0)


jax_program = cache(deepspeech_jax.program)


def jax_logits(name, train, params, state, batch, dropout_rate=0.0):
    return jax_program(TINY[name]).logits(
        params,
        state,
        batch,
        train=train,
        update_batch_norm=train,
        use_running_average_bn=not train,
        rng=KEY,
        dropout_rate=dropout_rate,
    )


@pytest.mark.parametrize("name", TINY)
def test_both_frameworks_evaluate_alike(name):
    batch, module = speech(), copy.deepcopy(scrambled(name)).eval()
    wanted, wanted_padding = torch_logits(name, module, batch)
    with jax.enable_x64(True):
        params, state = jax_program(TINY[name]).from_torch(module.state_dict())
        compute = jax.jit(partial(jax_logits, name, False))
        (got, padding), _ = compute(params, state, batch)
        got, padding = np.array(got), np.array(padding)
    assert got.shape == (4, 9, 6)
    np.testing.assert_array_equal(padding, wanted_padding)
    np.testing.assert_array_equal(padding.sum(1), [0, 5, 2, 9])
    np.testing.assert_allclose(got, wanted.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["base", "layer_norm"])
def test_both_frameworks_train_alike(name):
    batch, module = speech(1), copy.deepcopy(scrambled(name)).train()
    program = deepspeech_torch.program(TINY[name])
    targets = tuple(map(torch.as_tensor, batch["targets"]))
    loss = program.loss(targets, torch_logits(name, module, batch), None, 0.0)
    (loss["summed"] / loss["n_valid_examples"]).backward()

    def mean_loss(params, state):
        logits, new_state = jax_logits(name, True, params, state, batch)
        loss = jax_program(TINY[name]).loss(batch["targets"], logits, None, 0.0)
        return loss["summed"] / loss["n_valid_examples"], new_state

    with jax.enable_x64(True):
        from_torch = jax_program(TINY[name]).from_torch
        params, state = from_torch(scrambled(name).state_dict())
        wanted_averages = from_torch(module.state_dict())[1]
        gradients = {key: parameter.grad for key, parameter in module.named_parameters()}
        wanted, _ = from_torch(module.state_dict() | gradients)
        step = jax.jit(jax.grad(mean_loss, has_aux=True))
        got, averages = step(params, state)
        assert jax.tree.structure(got) == jax.tree.structure(wanted)
        scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted))
        for ours, theirs in ((got, wanted), (averages, wanted_averages)):
            jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-10 * scale), ours, theirs)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("train", [False, True])
def test_what_padding_holds_changes_no_frame_that_counts(name, train):
    """Nor the samples of padding nor the utterances of it change the others' logits."""
    module = copy.deepcopy(scrambled(name)).train(train)
    batch = speech(2)
    audio, padding = batch["inputs"]
    wanted, frames = torch_logits(name, module, batch)
    louder = batch | {"inputs": (np.where(padding == 1, 1e4, audio), padding)}
    got, _ = torch_logits(name, copy.deepcopy(scrambled(name)).train(train), louder)
    counted = frames == 0
    torch.testing.assert_close(got[counted], wanted[counted], rtol=1e-12, atol=1e-12)
    without = {key: tuple(value[:3] for value in pair) for key, pair in batch.items()}
    alone, _ = torch_logits(name, copy.deepcopy(scrambled(name)).train(train), without)
    torch.testing.assert_close(alone[counted[:3]], wanted[:3][counted[:3]], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_the_dropout_rate_reaches_the_linear_layers(framework):
    """Rates that differ give logits that differ even where nothing is dropped before the LSTMs."""
    config = tiny(num_lstms=1, num_feed_forward=1, residual=True)
    if framework == "torch":
        layer = deepspeech_torch.FeedForward(config).train()
        zeros = [
            int((layer(torch.randn(4, 9, 12), torch.zeros(4, 9), rate) == 0).sum()) for rate in (0.0, 0.9)
        ]
    else:
        layer = deepspeech_jax.FeedForwardModule(config)
        frames, padding = np.random.default_rng(0).normal(size=(4, 9, 12)), np.zeros((4, 9))
        weights = layer.init(KEY, frames, padding, True, 0.0, False)
        zeros = [
            int((layer.apply(weights, frames, padding, True, rate, True, rngs={"dropout": KEY}) == 0).sum())
            for rate in (0.0, 0.9)
        ]
    # ReLU leaves about half of them, of which nine in ten are dropped.
    assert zeros[0] < 0.7 * 432 and zeros[1] > 0.85 * 432


@cache
def initial():
    """Initial parameters by framework, flattened in Flax's naming."""
    config = tiny(width=64, subsampling_channels=16, num_lstms=1, num_feed_forward=1)
    program = deepspeech_jax.program(config)
    torch.manual_seed(0)
    ours, _ = program.from_torch(deepspeech_torch.program(config).module().state_dict())
    theirs, _ = program.init(KEY)
    return {"torch": flat(ours), "jax": flat(theirs)}


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_initial_weights(framework):
    for name, leaf in initial()[framework].items():
        leaf, module = np.asarray(leaf, np.float64), name.split("/")[-2]
        close = partial(pytest.approx, abs=4 / np.sqrt(2 * leaf.size))
        if not name.endswith("kernel"):
            assert not leaf.any(), name  # gains are 1 + 0
        elif "LSTM" in name and module.startswith("h"):
            np.testing.assert_allclose(leaf.T @ leaf, np.eye(32), rtol=0, atol=1e-5)
        elif "LSTM" in name:
            std = 1 / np.sqrt(64)  # LeCun-normal
            assert leaf.std() / std == close(1) and np.abs(leaf).max() <= 2 * std / 0.8796, name
        else:
            fan_in, fan_out = (leaf.shape[-2], leaf.shape[-1])
            bound = np.sqrt(6 / ((fan_in + fan_out) * np.prod(leaf.shape[:-2])))  # Xavier-uniform
            assert np.abs(leaf).max() <= bound * (1 + 1e-6), name
            assert leaf.std() / (bound / np.sqrt(3)) == close(1), name


@pytest.mark.parametrize("layer_norm", [False, True])
def test_torch_modules_compile_whole_and_once(layer_norm):
    torch._dynamo.reset()
    torch.manual_seed(0)
    program = deepspeech_torch.program(tiny(num_lstms=1, num_feed_forward=1, layer_norm=layer_norm))
    module = program.module().double().train()
    compiled = torch.compile(copy.deepcopy(module), fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(2):
            audio, padding = (torch.as_tensor(value[:, :200]) for value in speech(seed)["inputs"])
            batch = {"inputs": (audio, padding)}
            got, got_padding = program.logits(compiled, batch, dropout_rate=0.0)
            wanted, wanted_padding = program.logits(module, batch, dropout_rate=0.0)
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(got_padding, wanted_padding)
            got.sum().backward()
            assert all(parameter.grad is not None for parameter in compiled.parameters())
    torch._dynamo.reset()


def test_an_odd_width_is_refused():
    with pytest.raises(ValueError, match="must be even"):
        tiny(width=13)
