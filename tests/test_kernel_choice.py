"""What kernels may choose: every option computes the same, the fastest is found and kept, and records say which ran."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from click.testing import CliRunner

with mock.patch.dict(os.environ, TRITON_INTERPRET="1"):
    from timetrial.kernels import choice, device_time_torch, tuning_torch, used
    from timetrial.kernels.all_triton import CHOICES, KERNELS
    from timetrial.kernels.exactness_torch import exactness, made

from timetrial.engine.cli import tune

CPU = torch.device("cpu")
LAYER_NORM = KERNELS["layer_norm"]
FORWARD, BACKWARD = LAYER_NORM.choices
FIRST, SECOND, THIRD = FORWARD.options[4]


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """A GPU by name, whose tuned options lie in the folder that is returned."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(choice, "_folder", tmp_path)
    choice.kept.cache_clear()
    yield tmp_path
    choice.kept.cache_clear()


def write(folder, content):
    choice.file_of_this_gpu(folder).write_text(content, errors="surrogateescape")
    choice.keep_in(folder)


@pytest.mark.parametrize(
    ("name", "n", "dtype"),
    [
        pytest.param(name, n, dtype, marks=pytest.mark.slow if dtype == "bfloat16" else ())
        for name, kernel in KERNELS.items()
        for n in range(1, choice.most_options(kernel.choices))
        for dtype in kernel.dtypes
    ],
)
def test_every_option_is_as_exact_as_the_first(name, n, dtype):
    kernel = KERNELS[name]
    _, ragged, *_ = kernel.cases
    with choice.trying_each_nth(CHOICES, n):
        assert not [
            found for found in exactness(kernel, made(ragged, dtype, CPU), dtype) if not found.is_good
        ]


def test_the_first_option_is_taken_unless_another_is_tried():
    assert FORWARD[4] == FIRST
    with FORWARD.trying(4, SECOND):
        assert FORWARD[4] == SECOND and FORWARD[2] == FORWARD.options[2][0]
    assert FORWARD[4] == FIRST


def test_what_was_kept_of_this_gpu_is_taken(gpu):
    assert FORWARD[4] == FIRST
    write(gpu, json.dumps({"options": {FORWARD.name: {"4": list(THIRD)}}}))
    assert FORWARD[4] == THIRD and BACKWARD[4] == BACKWARD.options[4][0]
    assert "forward, 4 bytes: " + " ".join(map(str, THIRD)) in used.uses()["layer_norm"]


def test_what_another_version_kept_and_this_one_has_not_is_not_taken(gpu):
    write(gpu, json.dumps({"options": {FORWARD.name: {"4": [1, 1]}, "gone.forward": {"4": [2]}}}))
    assert FORWARD[4] == FIRST


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"options": {"layer_norm.forward": 7}}', "\udcff"])
def test_a_damaged_file_is_named(gpu, content):
    write(gpu, content)
    with pytest.raises(ValueError, match=r"NVIDIA_H200.*timetrial tune"):
        FORWARD[4]


class Timer:
    """Takes an option for as fast as it is told, by what is in force while it is asked."""

    def __init__(self, seconds):
        self.seconds = seconds

    def __call__(self, call):
        call()
        return self.seconds[FORWARD[4]]


def tried(kernel, timer):
    found, *_ = tuning_torch.tried(replace(kernel, choices=(FORWARD,)), timer, CPU, size="small")
    assert found.choice is FORWARD and found.element_size == 4
    return found


@pytest.mark.parametrize(
    ("seconds", "fastest"),
    [((3.0, 2.0, 1.0), THIRD), ((3.0, 1.0, 2.0), SECOND), ((1.0, 0.99, 0.99), FIRST)],
    ids=["third", "second", "within noise"],
)
def test_the_fastest_option_is_found(seconds, fastest):
    found = tried(LAYER_NORM, Timer(dict(zip((FIRST, SECOND, THIRD), seconds, strict=True))))
    assert found.fastest == fastest and not found.failures
    assert list(found.seconds.values()) == pytest.approx(seconds)


def test_an_option_that_fails_or_is_wrong_is_told_of_and_not_taken():
    def fused(*arguments):
        if FORWARD[4] == SECOND:
            raise RuntimeError("out of resources")
        y = LAYER_NORM.fused(*arguments)
        return (y[0] * 1.01, y[1]) if FORWARD[4] == THIRD and isinstance(y, tuple) else y

    kernel = replace(
        LAYER_NORM,
        fused=fused,
        cases=tuple(case for case in LAYER_NORM.cases if case.name == "residual"),
    )
    found = tried(kernel, Timer({FIRST: 9.0, SECOND: 1.0, THIRD: 1.0}))
    assert found.fastest == FIRST
    assert "out of resources" in found.failures[SECOND] and "output 1 is off" in found.failures[THIRD]


def test_without_a_gpu_there_is_nothing_to_tune(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(tune.UsageError, match="no NVIDIA GPU"):
        tune.command.main([], standalone_mode=False)


def test_what_was_found_is_shown_and_kept_beside_what_there_was(gpu, monkeypatch):
    monkeypatch.setenv("TIMETRIAL_HOME", str(gpu))
    folder = gpu / "kernels"
    folder.mkdir()
    write(folder, json.dumps({"options": {FORWARD.name: {"2": [7]}, "another.launch": {"4": [8]}}}))

    def few(kernel, timer, device):
        assert kernel is LAYER_NORM
        seconds = {FIRST: 3e-6, SECOND: 2e-6, THIRD: float("inf")}
        yield tuning_torch.Tried(
            choice=FORWARD, element_size=4, seconds=seconds, failures={THIRD: "no\nroom"}
        )

    monkeypatch.setattr(tuning_torch, "tried", few)
    monkeypatch.setattr(device_time_torch, "DeviceTimer", SimpleNamespace)
    done = CliRunner().invoke(tune.command, ["layer_norm"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "layer_norm.forward, 4 bytes" in done.output and "takes 2048 4 (" in done.output
    assert "4096 8 failed: no room" in done.output
    kept = json.loads(choice.file_of_this_gpu(folder).read_text())["options"]
    assert kept == {FORWARD.name: {"2": [7], "4": list(SECOND)}, "another.launch": {"4": [8]}}
    choice.keep_in(folder)
    assert FORWARD[4] == SECOND


def test_of_a_kernel_that_does_not_work_here_nothing_is_kept(gpu, monkeypatch, capsys):
    monkeypatch.setenv("TIMETRIAL_HOME", str(gpu))
    seconds = dict.fromkeys((FIRST, SECOND, THIRD), float("inf"))
    found = tuning_torch.Tried(
        choice=FORWARD, element_size=4, seconds=seconds, failures=dict.fromkeys(seconds, "no room")
    )
    monkeypatch.setattr(tuning_torch, "tried", lambda *_: [found])
    monkeypatch.setattr(device_time_torch, "DeviceTimer", SimpleNamespace)
    with pytest.raises(tune.UsageError, match="no option works"):
        tune.command.main(["layer_norm"], standalone_mode=False)
    assert capsys.readouterr().err.count("failed: no room") == 3
    assert not (gpu / "kernels").exists()


def test_a_kernel_that_does_not_exist_is_named(gpu):
    with pytest.raises(tune.UsageError, match=r"no kernel 'soft'.*softmax_cross_entropy"):
        tune.command.main(["soft"], standalone_mode=False)


class Gpu:
    """As much of torch.cuda as the timer uses. To queue an operation takes the host its time, to do it the device."""

    int8 = None
    host = device = 0.0  # seconds on either clock
    flush_sec, queue_sec = 1.0, 0.01

    @property
    def cuda(self):
        return SimpleNamespace(Event=self.event, synchronize=self.synchronize)

    def empty(self, *_, **__):
        return SimpleNamespace(zero_=lambda: self.queue(self.queue_sec, self.flush_sec))

    def queue(self, host_sec, device_sec):
        self.host += host_sec
        self.device = max(self.device, self.host) + device_sec

    def synchronize(self):
        self.host = max(self.host, self.device)

    def event(self, enable_timing):
        event = SimpleNamespace(at=None)

        def record():
            event.at = max(self.device, self.host)

        event.record = record
        event.query = lambda: event.at <= self.host
        event.elapsed_time = lambda end: 1e3 * (end.at - event.at)
        return event


@pytest.fixture
def fake(monkeypatch):
    gpu = Gpu()
    monkeypatch.setattr(device_time_torch, "torch", gpu)
    monkeypatch.setattr(device_time_torch, "LIMIT_SECONDS", 50.0)
    return gpu


@pytest.mark.parametrize("host_sec", [0.1, 5.0, 30.0])
def test_the_timer_leaves_out_what_the_host_takes(fake, host_sec):
    def call():
        fake.queue(host_sec / 2, 0.25)
        fake.queue(host_sec / 2, 0.5)

    assert device_time_torch.DeviceTimer()(call) == pytest.approx(0.75)


def test_the_timer_does_not_count_a_repeat_in_which_the_host_fell_behind(fake):
    calls = iter(range(1_000))

    def call():
        fake.queue(0.6 if next(calls) % 2 else 0.1, 0.75)
        fake.queue(0.6, 0.25)

    assert device_time_torch.DeviceTimer()(call) == pytest.approx(1.0)


def test_the_timer_comes_to_an_end_with_a_call_that_waits_for_the_device(fake):
    def call():
        fake.queue(0.1, 0.5)
        fake.synchronize()
        fake.queue(0.1, 0.5)

    assert device_time_torch.DeviceTimer()(call) == pytest.approx(1.1)
