import io

import numpy as np
import torch
from rich.console import Console
from wm.config import build_config, read_preset
from wm.measure.fresh import fresh_play
from wm.reporter import Reporter


def test_what_is_learned_from_and_what_is_tested_on_are_other_play():
    config = build_config(read_preset("tiny")).collect

    def actions(name):
        reporter = Reporter(Console(file=io.StringIO()))
        with fresh_play(
            config, "pong", 200, seed=0, name=name, device=torch.device("cpu"), reporter=reporter
        ) as play:
            return play.store.actions.copy(), play.store.frames[:]

    learned, tested, again = (actions(name) for name in ("learn", "test", "learn"))
    assert all(np.array_equal(*each) for each in zip(learned, again, strict=True))
    assert not any(np.array_equal(*each) for each in zip(learned, tested, strict=True))
