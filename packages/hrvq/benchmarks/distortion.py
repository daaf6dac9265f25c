"""Distortion at the same number of bits: our codes, fitted or trained, and vector-quantize-pytorch's.

    uv run python packages/hrvq/benchmarks/distortion.py [--passes 20] [--levels 3] [--codes 256] [FILE ...]

A tenth of the vectors is held out. `ResidualVQ` learns by moving averages from its own k-means start, in
batches of 4096, in as many passes as `fit` may take; its distortion is that of its own search. Ours gets as
many updates of the same size and decay (0.8); "joint" ones move each level to what all others leave. Files
are safetensors with `embeddings`; without any, vectors are drawn as in `fit.py`.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
    print(f"{len(learned)} training vectors of {x.shape[1]} dimensions, {len(held_out)} held out")
    learners = {
        "ResidualVQ": lambda: theirs(learned, held_out, arguments),
        "updates": lambda: updated(learned, held_out, arguments, joint=False),
        "joint updates": lambda: updated(learned, held_out, arguments, joint=True),
        "fit": lambda: fitted(learned, held_out, arguments, refine=0),
        "fit, refined": lambda: fitted(learned, held_out, arguments, refine=arguments.passes),
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


def fitted(learned: Tensor, held_out: Tensor, arguments: argparse.Namespace, *, refine: int) -> Tensor:
    """The held-out vectors, encoded and decoded after `fit`, (N, dim)."""
    quantizer = ours(learned, arguments)
    quantizer.fit(learned, epochs=arguments.passes, refine=refine, seed=0)
    return quantizer.decode(quantizer.encode(held_out))


def updated(learned: Tensor, held_out: Tensor, arguments: argparse.Namespace, *, joint: bool) -> Tensor:
    """The same after updates, the first of which starts the codes."""
    quantizer = ours(learned, arguments, decay=0.8, joint=joint)
    for rows in batches(learned, arguments.passes):
        quantizer.update(rows)
    return quantizer.decode(quantizer.encode(held_out))


def ours(learned: Tensor, arguments: argparse.Namespace, **options: Any) -> HRVQ:
    """An empty quantizer."""
    shape = {"dim": learned.shape[1], "levels": arguments.levels, "codes": arguments.codes}
    return HRVQ(HRVQConfig(**shape, commitment_weights=1.0, **options))


def batches(vectors: Tensor, passes: int) -> Iterator[Tensor]:
    """The full batches of each pass, or one smaller batch if there are too few vectors."""
    for _ in range(passes):
        for rows in torch.randperm(len(vectors)).split(BATCH):
            if len(rows) == BATCH or len(vectors) < BATCH:
                yield vectors[rows]


@torch.no_grad()
def theirs(learned: Tensor, held_out: Tensor, arguments: argparse.Namespace) -> Tensor:
    """The same with `ResidualVQ`, revival on, in its training and evaluation modes."""
    quantizer = ResidualVQ(
        dim=learned.shape[1],
        num_quantizers=arguments.levels,
        codebook_size=arguments.codes,
        kmeans_init=True,
        threshold_ema_dead_code=2,
    )
    for rows in batches(learned, arguments.passes):
        quantizer(rows[None])
    return quantizer.eval()(held_out[None])[0][0]


if __name__ == "__main__":
    main()
