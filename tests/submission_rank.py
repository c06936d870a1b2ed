"""One rank of `test_submission_ranks.py`: trains a line for three steps and prints where it ended."""

import json
import os
import sys
from types import SimpleNamespace

import torch
import torch.distributed as dist

from timetrial.engine.submission import load
from timetrial.engine.workload import ScalarLog

HYPERPARAMETERS = SimpleNamespace(
    learning_rate=0.1,
    one_minus_beta1=0.1,
    beta2=0.9,
    weight_decay=0.1,
    warmup_factor=0.0,
    decay_steps_factor=1.0,
    end_factor=0.1,
    dropout_rate=0.0,
    label_smoothing=0.0,
    grad_clip=0.5,
)


class Line:
    """Least squares; as many of its methods as a submission calls."""

    step_hint = 10

    def __init__(self, rank):
        self.metrics_logger = ScalarLog() if rank == 0 else None

    def model_fn(self, params, augmented_and_preprocessed_input_batch, **rest):
        return params(augmented_and_preprocessed_input_batch["inputs"]), None

    def loss_fn(self, label_batch, logits_batch, mask_batch, label_smoothing):
        squares = (logits_batch[:, 0] - label_batch) ** 2 * mask_batch
        return {"summed": squares.sum(), "n_valid_examples": mask_batch.sum(), "per_example": squares}


def share_of_batch(rank, ranks):
    """Fewer rows count on the second rank than on the first, so a mean of the ranks' means would be wrong."""
    generator = torch.Generator().manual_seed(1)
    whole = {
        "inputs": torch.randn(8, 3, generator=generator),
        "targets": torch.randn(8, generator=generator),
        "weights": torch.tensor([1.0, 1, 1, 1, 1, 0, 0, 0]),
    }
    return {key: value[rank * 8 // ranks : (rank + 1) * 8 // ranks] for key, value in whole.items()}


def train(path, rank, ranks):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    if ranks > 1:
        model = torch.nn.parallel.DistributedDataParallel(model)
    functions = load(path, "torch").functions
    workload = Line(rank)
    state = functions.init_optimizer_state(workload, model, None, HYPERPARAMETERS, None)
    for step in range(3):
        state, model, _ = functions.update_params(
            workload=workload,
            current_param_container=model,
            current_params_types=None,
            model_state=None,
            hyperparameters=HYPERPARAMETERS,
            batch=share_of_batch(rank, ranks),
            loss_type=None,
            optimizer_state=state,
            eval_results=[],
            global_step=step,
            rng=None,
        )
    weights = torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()
    return {"weights": weights, "log": workload.metrics_logger.take() if rank == 0 else []}


if __name__ == "__main__":
    dist.init_process_group("gloo")
    place = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    print(json.dumps({path: train(path, *place) for path in sys.argv[1:]}))
