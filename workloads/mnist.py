"""mnist: classify handwritten digits with one hidden layer. A development workload, not scored.

data    28 x 28 grey images in ten classes; 50,000 train, 10,000 validation, 10,000 test
        (x - 0.1307) / 0.3081 of pixel values 0 to 255, so that inputs lie between -0.42 and 827: the constants are
        those of values in 0 to 1, but both of AlgoPerf's pipelines apply them so
model   784 - Dense 128 - sigmoid - Dense 10, weights LeCun-normal, biases zero; 101,770 parameters
loss    softmax cross-entropy, optional label smoothing
metric  accuracy of the most probable class, higher is better
target  0.97 on both, AlgoPerf's
budget  60 s, evaluated every 10 s; step_hint 7,813, ten epochs at batch 64
cost    seconds of one CPU core
source  AlgoPerf's mnist (arXiv 2306.07179). Where its frameworks disagree: its torch model starts from torch's own
        initialisation the first time it is made and from LeCun-normal when it is made again; here as in its JAX.
"""

from typing import TYPE_CHECKING

from timetrial.data_loading import mnist as data
from timetrial.engine.facts import Metric, WorkloadFacts
from timetrial.engine.spec import LossType
from timetrial.workloads.metrics import accuracy_and_loss
from timetrial.workloads.models.perceptron import Perceptron

if TYPE_CHECKING:
    from timetrial.engine.facts import JaxProgram, TorchProgram


def torch_program(model: Perceptron) -> "TorchProgram":
    from timetrial.workloads.models import perceptron_torch

    return perceptron_torch.program(model)


def jax_program(model: Perceptron) -> "JaxProgram":
    from timetrial.workloads.models import perceptron_jax

    return perceptron_jax.program(model)


MNIST = WorkloadFacts(
    name="mnist",
    base="mnist",
    suite="algoperf",
    summary="MNIST, perceptron",
    num_parameters=101_770,
    dataset=data.DATASET,
    loss_type=LossType.SOFTMAX_CROSS_ENTROPY,
    metric=Metric(name="accuracy", better="higher"),
    validation_target=0.97,
    test_target=0.97,
    num_train_examples=data.SIZES.train,
    num_eval_train_examples=data.SIZES.eval_train,
    num_validation_examples=data.SIZES.validation,
    num_test_examples=data.SIZES.test,
    eval_batch_size=10_000,
    step_hint=7813,
    max_allowed_runtime_sec=60,
    eval_period_time_sec=10,
    model=Perceptron(num_features=784, hidden=128, num_classes=10),
    programs={"torch": torch_program, "jax": jax_program},
    metrics=accuracy_and_loss,
)
