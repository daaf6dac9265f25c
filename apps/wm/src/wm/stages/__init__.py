"""The stages of a run, in order. Each reads and writes artifacts and reports numbers next to a baseline."""

from wm.config import RunConfig
from wm.stage import Stage, in_rounds
from wm.stages import agent, choose, collect, decoder, encoder, evaluate, quantizer, start, worldmodel

STAGES: tuple[Stage, ...] = (
    collect.STAGE,
    encoder.STAGE,
    quantizer.STAGE,
    worldmodel.STAGE,
    agent.STAGE,
    decoder.STAGE,
    evaluate.STAGE,
)


def stages_of(config: RunConfig) -> tuple[Stage, ...]:
    """Every stage of a run, round by round."""
    rounds = in_rounds(STAGES, config.rounds.count)
    return start.with_start(choose.with_choice(rounds, config), config)


__all__ = ["STAGES", "stages_of"]
