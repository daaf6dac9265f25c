"""A transformer world model over hierarchical tokens, and fast batched imagination."""

from .config import WorldModelConfig
from .evaluate import LevelEvaluation, evaluate
from .fidelity import (
    EventFidelity,
    TokenFidelity,
    ValueFidelity,
    event_fidelity,
    replay,
    replay_policy,
    token_fidelity,
    useful_horizon,
    value_fidelity,
)
from .imagine import Dream, Policy, imagine
from .masks import visibility
from .model import WorldModel, WorldModelOutput, for_inference, load_worldmodel, save_worldmodel
from .objective import WorldModelObjective
from .optimizer import MuonAdamW, make_optimizer, parameter_groups
from .recorded import Recorded
from .sampler import Split, TokenBatch, TokenSampler, split_episodes
from .tracker import StateTracker
from .trajectories import TokenTrajectories, load_tokens, save_tokens

__all__ = [
    "Dream",
    "EventFidelity",
    "LevelEvaluation",
    "MuonAdamW",
    "Policy",
    "Recorded",
    "Split",
    "StateTracker",
    "TokenBatch",
    "TokenFidelity",
    "TokenSampler",
    "TokenTrajectories",
    "ValueFidelity",
    "WorldModel",
    "WorldModelConfig",
    "WorldModelObjective",
    "WorldModelOutput",
    "evaluate",
    "event_fidelity",
    "for_inference",
    "imagine",
    "load_tokens",
    "load_worldmodel",
    "make_optimizer",
    "parameter_groups",
    "replay",
    "replay_policy",
    "save_tokens",
    "save_worldmodel",
    "split_episodes",
    "token_fidelity",
    "useful_horizon",
    "value_fidelity",
    "visibility",
]
