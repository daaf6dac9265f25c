"""Codes fitted to 300 000 fixed vectors: seconds taken, and how well the codes are used.

    uv run python packages/hrvq/benchmarks/fit.py [--rows 300000] [--refine 10] [--threads 2] [FILE ...]

Without files the vectors are drawn: unit vectors of 60 clusters near a 24-dimensional subspace, written to a
file and read from it in blocks, as embeddings of frames would be. Given files are fitted together.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from hrvq import HRVQ, HRVQConfig
from safetensors.torch import save_file


def draw(rows: int, dim: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    basis = torch.randn(24, dim, generator=random)
    centres = torch.randn(60, 24, generator=random)
    x = centres[torch.randint(60, (rows,), generator=random)] + torch.randn(rows, 24, generator=random) * 0.7
    return F.normalize(x @ basis + torch.randn(rows, dim, generator=random), dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--refine", type=int, default=0, help="passes that move all levels together")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        files = arguments.files
        if not files:
            files = [Path(folder) / "embeddings.safetensors"]
            save_file({"embeddings": draw(arguments.rows, arguments.dim)}, files[0])
        quantizer = HRVQ(HRVQConfig(dim=arguments.dim))
        start = time.perf_counter()
        result = quantizer.fit(files, refine=arguments.refine, progress=lambda p: print(f"  {p}", flush=True))
        print(f"{time.perf_counter() - start:.1f} s, {arguments.threads} threads")
        for name, values in result._asdict().items():
            of_levels = values if isinstance(values, tuple) else (values,)
            print(f"{name:11}", "  ".join(f"{value:.4g}" for value in of_levels))


if __name__ == "__main__":
    main()
