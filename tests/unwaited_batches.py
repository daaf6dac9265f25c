"""A simulated GPU gets its batches and takes its steps without being waited for; run in its own process."""

from types import SimpleNamespace

import numpy as np
import pretend_gpu
import torch
from cnn_encoder import ContrastiveConfig, ContrastiveObjective, Encoder, EncoderConfig
from hrvq import HRVQ, HRVQConfig
from pretend_gpu import DEVICE, WAITED
from wm.clips import ClipSampler
from wm.stages.decoder import Source

ROWS = 40


def main() -> None:
    pretend_gpu.install()
    with pretend_gpu.Pretended():
        what_waits_is_noticed()
        clips()
        frames_to_draw()
        quantizing()


def what_waits_is_noticed() -> None:
    there, here = torch.arange(3).to(DEVICE, non_blocking=True), torch.arange(3)
    assert unwaited(lambda: there + there)
    assert unwaited(lambda: here.to(DEVICE, non_blocking=True))
    assert unwaited(lambda: there.to(torch.float64))
    assert unwaited(lambda: here.to(torch.float64))
    for waits in (
        lambda: here.to(DEVICE),
        there.cpu,
        lambda: there.clone().copy_(here),
        lambda: int(there[0]),
        lambda: there[there > 1],
        lambda: there[here],
    ):
        assert not unwaited(waits)


def clips() -> None:
    random = np.random.default_rng(0)
    store = SimpleNamespace(
        episode_ids=np.zeros(ROWS, np.int64),
        actions=random.integers(18, size=ROWS).astype(np.uint8),
        rewards=np.zeros(ROWS, np.float32),
        clips=lambda starts, length: random.integers(
            256, size=(len(starts), 3 + length, 84, 84), dtype=np.uint8
        ),
    )
    sampler = ClipSampler(
        {"pong": store},
        {"pong": torch.zeros(84, 84)},
        length=4,
        batch_size=2,
        seed=0,
        validates=lambda ids: np.zeros(len(ids), np.bool_),
        device=DEVICE,
    )
    encoder = Encoder(EncoderConfig(embedding_dim=8, hidden_dim=8))
    objective = ContrastiveObjective(encoder, ContrastiveConfig(inverse_hidden_dim=8)).to(DEVICE)

    def step() -> None:
        loss, _ = objective(sampler.batch(0))
        loss.backward()
        objective.after_step()

    assert unwaited(step)


def frames_to_draw() -> None:
    quantizer = HRVQ(HRVQConfig(dim=5, levels=2, codes=7))
    quantizer.set_codebooks([torch.randn(7, 5), torch.randn(7, 5)])
    source = Source(
        store=SimpleNamespace(frames=np.arange(ROWS * 84 * 84, dtype=np.uint8).reshape(ROWS, 84, 84)),
        embeddings=torch.randn(ROWS, 5),
        tokens=torch.randint(7, (ROWS, 2)).short(),
        background=torch.zeros(84, 84).to(DEVICE),
        quantizer=quantizer.to(DEVICE),
    )
    rows, depths = np.array([5, 9, 5]), np.array([0, 2, 1])
    assert unwaited(lambda: source.batch(rows, depths))
    batch = source.batch(rows, depths)
    prefixes = quantizer.level_embeddings(source.tokens.long().to(DEVICE)).cumsum(1).cpu()
    expected = [prefixes[5, 0], source.embeddings[9], prefixes[5, 1]]
    torch.testing.assert_close(batch.embeddings.cpu(), torch.stack(expected))
    assert np.array_equal(batch.frames.cpu().numpy(), source.store.frames[rows])


def quantizing() -> None:
    quantizer = HRVQ(HRVQConfig(dim=5, levels=2, codes=7))
    quantizer.set_codebooks([torch.randn(7, 5), torch.randn(7, 5)])
    quantizer.to(DEVICE).train()
    vectors = torch.randn(ROWS, 5).to(DEVICE).requires_grad_()

    def step() -> None:
        output = quantizer(vectors)
        (output.quantized.sum() + output.commitment_loss.sum()).backward()

    assert unwaited(step)


def unwaited(do: object) -> bool:
    """Whether it was done without waiting; prints what waited."""
    WAITED.clear()
    do()  # type: ignore[operator]
    print(*WAITED, flush=True)
    return not WAITED


if __name__ == "__main__":
    main()
