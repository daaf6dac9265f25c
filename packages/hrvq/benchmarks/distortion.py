"""How much the same number of bits loses: `fit`, `fit` refined, and vector-quantize-pytorch's `ResidualVQ`.

    uv run python packages/hrvq/benchmarks/distortion.py [--passes 20] [--levels 3] [--codes 256] [FILE ...]

A tenth of the vectors is held out. `ResidualVQ` learns by moving averages from its own k-means start, in
batches of 4096, in as many passes as `fit` may take; the distortion is that of its own search. Files are
safetensors with `embeddings`; without any, vectors are drawn as `fit.py` draws them.
"""

import argparse
import time
from pathlib import Path

import torch
from fit import draw
from hrvq import HRVQ, HRVQConfig
from safetensors.torch import load_file
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

BATCH = 4096


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--codes", type=int, default=256)
    parser.add_argument("--passes", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    x = torch.cat(
        [load_file(file)["embeddings"].float() for file in arguments.files]
        or [draw(arguments.rows, arguments.dim)]
    )
    order = torch.randperm(len(x))
    learned, held_out = x[order[len(x) // 10 :]], x[order[: len(x) // 10]]
    variance = (held_out - learned.mean(0)).square().sum(1).mean()
    print(f"{len(learned)} vectors of {x.shape[1]}, {len(held_out)} more to measure with")
    learners = {
        "ResidualVQ": lambda: theirs(learned, held_out, arguments),
        "fit": lambda: ours(learned, held_out, arguments, refine=0),
        "fit, refined": lambda: ours(learned, held_out, arguments, refine=arguments.passes),
    }
    first = None
    for name, learn in learners.items():
        began = time.perf_counter()
        lost = (held_out - learn()).square().sum(1).mean() / variance
        first = lost if first is None else first
        seconds = time.perf_counter() - began
        print(
            f"{name:13} {lost:.4f} of the variance, {lost / first:.3f} of theirs; {seconds:.1f} s", flush=True
        )


def ours(learned: Tensor, held_out: Tensor, arguments: argparse.Namespace, *, refine: int) -> Tensor:
    """What the held-out vectors are after `fit` and back, (N, dim)."""
    quantizer = HRVQ(
        HRVQConfig(
            dim=learned.shape[1], levels=arguments.levels, codes=arguments.codes, commitment_weights=1.0
        )
    )
    quantizer.fit(learned, epochs=arguments.passes, refine=refine, seed=0)
    return quantizer.decode(quantizer.encode(held_out))


@torch.no_grad()
def theirs(learned: Tensor, held_out: Tensor, arguments: argparse.Namespace) -> Tensor:
    """The same of `ResidualVQ`, revival on, in its training and evaluation modes."""
    quantizer = ResidualVQ(
        dim=learned.shape[1],
        num_quantizers=arguments.levels,
        codebook_size=arguments.codes,
        kmeans_init=True,
        threshold_ema_dead_code=2,
    )
    for _ in range(arguments.passes):
        for rows in torch.randperm(len(learned)).split(BATCH):
            if len(rows) == BATCH or len(learned) < BATCH:
                quantizer(learned[rows][None])
    return quantizer.eval()(held_out[None])[0][0]


if __name__ == "__main__":
    main()
