"""The supervised encoder: like the run's, but trained on the labels, for comparison only."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from cnn_encoder import Encoder, SupervisedBatch, SupervisedObjective
from torch import Tensor

from wm.device import frozen, generator
from wm.fit import fit
from wm.measure.fresh import FreshPlay
from wm.opened import RunAtHand
from wm.sections import FitConfig

FIT = FitConfig(steps=0, epochs=8, batch_size=128, learning_rate=1e-3, warmup=20)


def train_supervised(run: RunAtHand, play: FreshPlay, background: Tensor, *, seed: int) -> Encoder:
    """An encoder of the run's shape, trained to predict the labels of ``play``."""
    assert play.state is not None
    state, device = play.state, run.device
    encoder = Encoder(run.config.encoder, generator=generator(seed, "supervised")).to(device)
    head = generator(seed, "supervised head")
    objective = SupervisedObjective(encoder, state, generator=head).to(device)

    def batch(index: int) -> SupervisedBatch:
        rng = np.random.default_rng([seed, index])
        rows = rng.integers(len(play.store), size=FIT.batch_size)
        where = torch.from_numpy(rows).to(device)
        return SupervisedBatch(
            frames=torch.from_numpy(play.store.stacks(rows)).to(device),
            labels=state.values[where],
            in_play=state.in_play[where],
            background=background,
        )

    with tempfile.TemporaryDirectory() as directory:
        fit(
            objective,
            batch,
            FIT,
            stage="supervised",
            seed=seed,
            device=device,
            reporter=run.reporter,
            checkpoint=Path(directory) / "supervised.pt",
            epoch_size=len(play.store),
        )
    return frozen(encoder)
