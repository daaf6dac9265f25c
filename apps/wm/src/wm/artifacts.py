"""A run's trained parts, frozen and on a device."""

import torch
from hrvq import HRVQ
from latent_ac import Agent, load_agent
from token_worldmodel import WorldModel, load_worldmodel

from wm.device import frozen
from wm.run import Layout


def frozen_quantizer(layout: Layout, device: torch.device) -> HRVQ:
    """The run's codes.

    Raises:
        ValueError: as below, the file is missing or damaged.
    """
    return frozen(HRVQ.load(layout.hrvq)).to(device)


def frozen_worldmodel(layout: Layout, device: torch.device) -> WorldModel:
    """The run's world model."""
    return frozen(load_worldmodel(layout.worldmodel)).to(device)


def frozen_agent(layout: Layout, device: torch.device) -> Agent:
    """The run's actor, critic and predictors."""
    return frozen(load_agent(layout.agent, device=device))
