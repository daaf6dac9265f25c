"""Training and embedding rates compared with a plain float32 loop of the same network, alternating.

    uv run python packages/cnn-encoder/benchmarks/speed.py [--threads 2] [--rounds 7]

Both run in one process. Training is measured twice: InfoNCE alone on both sides, and the package's whole
objective against InfoNCE alone. Prints images per second (best of the rounds), the ratio of the two (median
over rounds, so that a busy machine slows both), and the share of nearest codes that the faster arithmetic
changes. With one thread it measures CPU time, which other processes hardly affect.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from cnn_encoder import (
    ClipBatch,
    ContrastiveConfig,
    ContrastiveObjective,
    Encoder,
    EncoderConfig,
    embed,
    info_nce,
    resolve_precision,
    stack_frames,
)
from torch import Tensor, nn

STRETCHES, STEPS = 8, 40
IMAGES = STRETCHES * STEPS


def plain_network() -> nn.Sequential:
    convolutions = (nn.Conv2d(4, 32, 8, 4), nn.Conv2d(32, 64, 4, 2), nn.Conv2d(64, 64, 3))
    layers = [module for convolution in convolutions for module in (convolution, nn.ReLU())]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 384))


def plain_embed(network: nn.Module, frames: Tensor, background: Tensor) -> Tensor:
    return F.normalize(network((frames.float() - background) / 255), dim=-1)


def plain_step(batch: ClipBatch) -> Callable[[], None]:
    """InfoNCE alone, float32: the loop one would write first."""
    network = plain_network()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    frames = stack_frames(batch.frames).flatten(0, 1)

    def step() -> None:
        z = plain_embed(network, frames, batch.background[0]).unflatten(0, (STRETCHES, STEPS))
        loss = info_nce(z[:, :-1], z[:, 1:], 0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


ALONE = ContrastiveConfig(
    contrastive_weight=1.0,
    inverse_weight=0.0,
    layout_weight=0.0,
    picture_weight=0.0,
    reward_weight=0.0,
)
WHOLE = ContrastiveConfig(inverse_start_step=0)


def our_step(batch: ClipBatch, config: ContrastiveConfig) -> Callable[[], None]:
    """Under autocast where bfloat16 is native; ``ALONE`` trains the same loss as the plain loop."""
    objective = ContrastiveObjective(Encoder(EncoderConfig()), config)
    optimizer = torch.optim.AdamW(objective.parameters(), 1e-3, fused=True)
    native = resolve_precision("auto", torch.device("cpu")) == torch.bfloat16

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=native):
            loss, _ = objective(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        objective.after_step()

    return step


def compare(
    name: str,
    plain: Callable[[], object],
    ours: Callable[[], object],
    images: int,
    options: argparse.Namespace,
) -> None:
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    clock = time.process_time if options.threads == 1 else time.perf_counter
    for _ in range(options.rounds + 1):
        for label, run in (("plain", plain), ("ours", ours)):
            start = clock()
            run()
            seconds[label].append(clock() - start)
    plain_s, ours_s = seconds["plain"][1:], seconds["ours"][1:]  # the first round is a warm-up
    ratio = statistics.median(a / b for a, b in zip(plain_s, ours_s, strict=True))
    print(
        f"{name:8s} plain {images / min(plain_s):7.0f} images/s   ours {images / min(ours_s):7.0f} images/s"
        f"   ratio {ratio:.2f}"
    )


def changed_codes(exact: Tensor, fast: Tensor, generator: torch.Generator) -> float:
    """Share of rows whose nearest of 256 codes changes; the codes are rows of ``exact`` drawn at random."""
    codes = exact[torch.randperm(len(exact), generator=generator)[:256]]
    nearest = [torch.cdist(z, codes).argmin(1) for z in (exact, fast)]
    return (nearest[0] != nearest[1]).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)

    clip = torch.randint(0, 256, (STRETCHES, STEPS + 3, 84, 84), dtype=torch.uint8, generator=generator)
    background = torch.full((STRETCHES, 84, 84), 127.5)
    batch = ClipBatch(clip, torch.randint(0, 18, (STRETCHES, STEPS), generator=generator), background)
    compare("InfoNCE", plain_step(batch), our_step(batch, ALONE), IMAGES, options)
    compare("training", plain_step(batch), our_step(batch, WHOLE), IMAGES, options)

    frames = stack_frames(clip).flatten(0, 1).repeat(4, 1, 1, 1)
    network, encoder = plain_network(), Encoder(EncoderConfig())

    @torch.inference_mode()
    def plain() -> None:
        for part in frames.split(256):
            plain_embed(network, part, background[0])

    compare("embed", plain, lambda: embed(encoder, frames, background[0]), len(frames), options)
    exact = embed(encoder, frames[:IMAGES], background[0], precision="float32")
    fast = embed(encoder, frames[:IMAGES], background[0], precision="bfloat16")
    share = changed_codes(exact, fast, generator)
    print(f"nearest of 256 codes changed by bfloat16 (untrained encoder, noise frames): {100 * share:.2f} %")


if __name__ == "__main__":
    main()
