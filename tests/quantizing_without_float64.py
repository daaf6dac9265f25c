"""hrvq on a simulated GPU without float64, like Apple's; run in a process of its own, as it changes torch."""

from dataclasses import replace

import hrvq
import hrvq._precision
import pretend_gpu
import torch
from hrvq import HRVQ, HRVQConfig
from pretend_gpu import DEVICE


def main() -> None:
    pretend_gpu.install()
    pretend_gpu.WITHOUT.add(torch.float64)
    with pretend_gpu.Pretended():
        try:
            torch.ones(2, dtype=torch.float64, device=DEVICE)
        except TypeError:
            hrvq._precision._WITHOUT_FLOAT64.add(DEVICE.type)
        as_on_a_cpu()


def as_on_a_cpu() -> None:
    vectors = torch.randn(500, 6)
    here = HRVQ(HRVQConfig(dim=6, levels=2, codes=8))
    there = HRVQ(here.config).to(DEVICE)
    there.fit(vectors.to(DEVICE), refine=3)
    here.set_codebooks([codes.cpu() for codes in there.codebooks])
    tokens = there.encode(vectors.to(DEVICE))
    assert torch.equal(tokens.cpu(), here.encode(vectors))
    torch.testing.assert_close(there.decode(tokens).cpu(), here.decode(tokens.cpu()))

    groups = torch.arange(500) % 2
    for measure in (hrvq.shared_code_share, hrvq.jensen_shannon, hrvq.usage_by_group):
        torch.testing.assert_close(
            measure(tokens, groups, 8).cpu(), measure(tokens.cpu(), groups, 8), rtol=0, atol=1e-6
        )

    there.train()
    given = vectors.to(DEVICE).requires_grad_()
    output = there(given)
    (output.quantized.sum() + output.commitment_loss.sum()).backward()
    assert bool(given.grad.isfinite().all())

    for joint in (False, True):
        moved = []
        for device in (torch.device("cpu"), DEVICE):
            quantizer = HRVQ(replace(here.config, joint=joint)).to(device)
            quantizer.set_codebooks([codes.to(device) for codes in here.codebooks])
            quantizer.update(vectors.to(device))
            moved.append(torch.cat([codes.cpu() for codes in quantizer.codebooks]))
        torch.testing.assert_close(*moved)


if __name__ == "__main__":
    main()
