"""A transformer world model over hierarchical tokens, and fast batched imagination."""

from .config import WorldModelConfig
from .decoder import Decoder
from .imagine import Dream, Policy, imagine
from .masks import visibility
from .model import WorldModel, WorldModelOutput, frozen
from .objective import WorldModelObjective, parameter_groups
from .sampler import TokenBatch, TokenSampler, split_episodes
from .trajectories import TokenTrajectories, load_tokens, save_tokens
from .weights import load_worldmodel, save_worldmodel

__all__ = [
    "Decoder",
    "Dream",
    "Policy",
    "TokenBatch",
    "TokenSampler",
    "TokenTrajectories",
    "WorldModel",
    "WorldModelConfig",
    "WorldModelObjective",
    "WorldModelOutput",
    "frozen",
    "imagine",
    "load_tokens",
    "load_worldmodel",
    "parameter_groups",
    "save_tokens",
    "save_worldmodel",
    "split_episodes",
    "visibility",
]
