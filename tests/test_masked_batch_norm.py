"""The masked batch norm of speech models on its own; `test_model_conformer.py` compares it with NumPy and Flax."""

import torch
import torch.multiprocessing

from timetrial.workloads.models.masked_batch_norm_torch import MaskedBatchNorm


def test_batch_norm_ignores_padding_and_survives_nothing_else():
    norm = MaskedBatchNorm(3, 0.999).double().train()
    x = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    padding = torch.tensor([[0, 0, 0, 1], [0, 1, 1, 1]], dtype=torch.float64)
    y = norm(x, padding)
    other = norm(torch.where(padding[..., None] == 1, 1e6, x), padding)
    torch.testing.assert_close(y, other)
    assert not y[padding == 1].any()
    torch.testing.assert_close(y[padding == 0].mean(0), torch.zeros(3, dtype=torch.float64))
    assert not norm(x, torch.ones_like(padding)).any()


def normalise_share(rank, folder, x, padding, weights):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    norm, share = MaskedBatchNorm(3, 0.999).double(), slice(2 * rank, 2 * rank + 2)
    mine = x[share].clone().requires_grad_()
    y = norm(mine, padding[share])
    (y * weights[share]).sum().backward()
    torch.save((y.detach(), mine.grad, norm.running_mean, norm.running_var), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_batch_norm_s_statistics_are_of_all_ranks(tmp_path):
    generator = torch.Generator().manual_seed(0)
    x, weights = torch.randn(2, 4, 5, 3, dtype=torch.float64, generator=generator)
    padding = (torch.arange(5) >= torch.tensor([5, 3, 1, 0])[:, None]).double()
    torch.multiprocessing.spawn(normalise_share, (tmp_path, x, padding, weights), nprocs=2)
    shares = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    norm, whole = MaskedBatchNorm(3, 0.999).double(), x.requires_grad_()
    y = norm(whole, padding)
    (y * weights).sum().backward()
    torch.testing.assert_close(torch.cat([share[0] for share in shares]), y)
    torch.testing.assert_close(torch.cat([share[1] for share in shares]), whole.grad)
    for share in shares:
        torch.testing.assert_close(share[2:], (norm.running_mean, norm.running_var))
