"""Encode, decode and train: hrvq compared with vector-quantize-pytorch, in one process, in turn.

    uv run python packages/hrvq/benchmarks/speed.py [--rounds 15] [--threads 2] [--device cpu] [--large]

Both hold the same codes, and the tokens are compared before anything is timed. Each figure is the best of the
rounds, in which ours and theirs alternate, so that noise on the machine affects both. "embedding" is decoding
as a sum of one F.embedding per level; "encodec" is EnCodec's own decoding in transformers, if that is
installed (uv run --with transformers python ...). Memory is the peak rise of resident memory during a call.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from hrvq import HRVQ, HRVQConfig
from hrvq._config import Gradient
from torch import Tensor
from vector_quantize_pytorch import ResidualVQ

SHAPES = ((4096, 384, 3, 256), (65536, 384, 3, 256), (4096, 384, 8, 1024))
LARGE = ((65536, 384, 8, 1024),)
DECAY = 0.99
Shape = tuple[int, int, int, int]
Pair = tuple[Callable[[], object], Callable[[], object]]


def embeddings(rows: int, dim: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    basis = torch.randn(24, dim, generator=random)
    x = torch.randn(rows, 24, generator=random) @ basis + torch.randn(rows, dim, generator=random)
    return F.normalize(x, dim=1)


def build(
    rows: int, dim: int, levels: int, codes: int, device: str, gradient: Gradient
) -> tuple[Tensor, HRVQ, ResidualVQ]:
    x = embeddings(rows, dim).to(device)
    config = HRVQConfig(
        dim=dim, levels=levels, codes=codes, decay=DECAY, commitment_weights=1.0, gradient=gradient
    )
    ours = HRVQ(config).to(device)
    residual, codebooks = x[:4096], []
    torch.manual_seed(0)
    for _ in range(levels):  # plausible codes, fast: as spread out as what they quantize
        noise = torch.randn(codes, dim, device=device)
        codebooks.append(residual.mean(0) + residual.std(0) * noise * 0.7)
        residual = residual - codebooks[-1][torch.cdist(residual, codebooks[-1]).argmin(1)]
    ours.set_codebooks(codebooks, [torch.full((codes,), rows / codes) for _ in range(levels)])
    theirs = ResidualVQ(
        dim=dim,
        num_quantizers=levels,
        codebook_size=codes,
        decay=DECAY,
        threshold_ema_dead_code=2,
        rotation_trick=gradient == "rotation",
    ).to(device)
    for layer, level_codes in zip(theirs.layers, codebooks, strict=True):
        layer._codebook.embed.copy_(level_codes[None])
        layer._codebook.cluster_size.fill_(rows / codes)
        layer._codebook.embed_avg.copy_(level_codes[None] * rows / codes)
    return x, ours, theirs


def embedding_decode(tokens: Tensor, codebooks: tuple[Tensor, ...]) -> Tensor:
    quantized = torch.zeros((), device=tokens.device)
    for level_tokens, codes in zip(tokens.unbind(1), codebooks, strict=True):
        quantized = quantized + F.embedding(level_tokens, codes)
    return quantized


def encodec_decoder(codebooks: tuple[Tensor, ...]) -> Callable[[Tensor], Tensor] | None:
    """EnCodec's residual quantizer with these codes, (N, levels) -> (N, dim); None without transformers."""
    try:
        from transformers import EncodecConfig
        from transformers.models.encodec import modeling_encodec
    except ImportError:
        return None
    config = EncodecConfig(codebook_size=len(codebooks[0]), codebook_dim=codebooks[0].shape[1])
    quantizer = modeling_encodec.EncodecResidualVectorQuantizer(config)
    layers = [modeling_encodec.EncodecVectorQuantization(config) for _ in codebooks]
    quantizer.layers = torch.nn.ModuleList(layers).to(codebooks[0].device)
    for layer, codes in zip(layers, codebooks, strict=True):
        layer.codebook.embed.copy_(codes)

    def decode(tokens: Tensor) -> Tensor:
        return quantizer.decode(tokens.T[:, None])[0].T  # their vectors are (batch, dim, time)

    return decode


def agreement(x: Tensor, ours: HRVQ, theirs: ResidualVQ) -> float:
    """Share of the vectors that get the same tokens from both."""
    with torch.no_grad():
        return float((theirs.eval()(x[None])[1][0] == ours.encode(x)).all(1).float().mean())


def training_step(x: Tensor, ours: HRVQ, theirs: ResidualVQ) -> Pair:
    """Forward, backward and the update of the codes."""

    def our_step() -> object:
        given = x.clone().requires_grad_()
        out = ours.train()(given)
        (out.quantized.square().mean() + out.commitment_loss.sum()).backward()
        return ours.update(given.detach(), out.tokens)

    def their_step() -> object:
        given = x.clone().requires_grad_()
        quantized, _, losses = theirs.train()(given[None])
        return (quantized.square().mean() + losses.sum()).backward()

    return our_step, their_step


def calls(shape: Shape, device: str) -> dict[str, Pair]:
    """What is compared: (ours, theirs). Training steps are with each of the two gradients that both have."""
    x, ours, theirs = build(*shape, device, "straight_through")
    rows, dim, levels, codes = shape
    print(f"{rows} x {dim}, {levels} levels x {codes} codes; same tokens: {agreement(x, ours, theirs):.6f}")
    tokens = torch.randint(codes, (rows, levels), device=x.device)

    def their_encode() -> object:  # their only way to tokens is a whole forward pass
        with torch.no_grad():
            return theirs.eval()(x[None])

    def our_decode() -> object:
        return ours.decode(tokens)

    compared: dict[str, Pair] = {
        "encode": (lambda: ours.encode(x), their_encode),
        "decode": (our_decode, lambda: theirs.get_output_from_indices(tokens[None])),
        "decode (embedding)": (our_decode, lambda: embedding_decode(tokens, ours.codebooks)),
    }
    if encodec := encodec_decoder(ours.codebooks):
        torch.testing.assert_close(encodec(tokens), ours.decode(tokens))
        compared["decode (encodec)"] = (our_decode, lambda: encodec(tokens))
    compared["training (straight)"] = training_step(x, ours, theirs)
    compared["training (rotation)"] = training_step(*build(*shape, device, "rotation"))
    return compared


def seconds(call: Callable[[], object], device: str, clock: Callable[[], float]) -> float:
    start = clock()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def peak_growth(call: Callable[[], object]) -> float:
    """MiB by which a call raises this process's resident memory at its peak (Linux)."""

    def status(field: str) -> int:
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if field in line)
        return int(line.split()[1])

    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status("VmRSS")
    call()
    return (status("VmHWM") - before) / 1024


def measure(shape: Shape, rounds: int, device: str, clock: Callable[[], float]) -> None:
    for name, (our_call, their_call) in calls(shape, device).items():
        our_times, their_times = [], []
        for _ in range(rounds + 1):  # the first is a warm-up
            our_times.append(seconds(our_call, device, clock))
            their_times.append(seconds(their_call, device, clock))
        best, theirs_best = min(our_times[1:]), min(their_times[1:])
        ratios = sorted(t / o for o, t in zip(our_times[1:], their_times[1:], strict=True))
        line = f"  {name:19} {shape[0] / best / 1e6:8.3f} {shape[0] / theirs_best / 1e6:8.3f} M vectors/s"
        line += f"   {theirs_best / best:5.1f}x (median round {ratios[len(ratios) // 2]:.1f}x)"
        if device == "cpu" and sys.platform == "linux":
            line += f"   peak memory {peak_growth(our_call):.0f} : {peak_growth(their_call):.0f} MiB"
        print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--large", action="store_true", help="also 65536 vectors with 8 levels of 1024 codes")
    parser.add_argument(
        "--cpu-time", action="store_true", help="measure CPU time: for one thread on a busy machine"
    )
    parser.add_argument("--shapes", type=int, default=len(SHAPES), help="only the first N shapes")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    torch.set_num_threads(arguments.threads)
    print(f"torch {torch.__version__}, {arguments.threads} threads, {arguments.device}; ours, theirs, ratio")
    for shape in SHAPES[: arguments.shapes] + (LARGE if arguments.large else ()):
        measure(shape, arguments.rounds, arguments.device, clock)


if __name__ == "__main__":
    main()
