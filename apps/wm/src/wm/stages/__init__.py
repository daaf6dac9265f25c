"""The stages of a run, in order. Each reads and writes artifacts and reports numbers beside a baseline."""

from wm.pipeline import Stage
from wm.stages import agent, collect, decoder, encoder, evaluate, quantizer, worldmodel

STAGES: tuple[Stage, ...] = (
    collect.STAGE,
    encoder.STAGE,
    quantizer.STAGE,
    decoder.STAGE,
    worldmodel.STAGE,
    agent.STAGE,
    evaluate.STAGE,
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)

__all__ = ["STAGES", "STAGE_NAMES"]
