import io
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from wm.config import build_config
from wm.measure.fresh import fresh_play
from wm.opened import RunAtHand
from wm.preset import read_preset
from wm.reporter import Reporter
from wm.run import Layout


def test_what_is_learned_from_and_what_is_tested_on_are_other_play():
    reporter = Reporter(Console(file=io.StringIO()))
    run = RunAtHand(build_config(read_preset("tiny")), Layout(Path()), torch.device("cpu"), reporter)

    def actions(name):
        with fresh_play(run, "pong", 200, seed=0, name=name) as play:
            return play.store.actions.copy(), play.store.frames[:]

    learned, tested, again = (actions(name) for name in ("learn", "test", "learn"))
    assert all(np.array_equal(*each) for each in zip(learned, again, strict=True))
    assert not any(np.array_equal(*each) for each in zip(learned, tested, strict=True))
