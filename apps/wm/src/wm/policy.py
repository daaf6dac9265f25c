"""A trained run as a policy for the real game."""

from dataclasses import dataclass

import numpy as np
import torch
from atari_data import action_mask
from cnn_encoder import Encoder, embed, load_encoder, resolve_precision
from hrvq import HRVQ
from latent_ac import CodePolicy

from wm.artifacts import frozen_agent, frozen_quantizer
from wm.device import frozen, generator
from wm.run import Layout


@dataclass
class RunPolicy:
    """Callable: obs uint8 (B, 4, 84, 84), env ids -> actions int64 (B,), ids of the full 18-action set.

    Args:
        temperature: of the choice among the game's own actions; 0 is greedy.
        random: source of the choice, on ``device``.
    """

    encoder: Encoder
    quantizer: HRVQ
    actor: CodePolicy
    background: torch.Tensor
    mask: torch.Tensor
    temperature: float
    random: torch.Generator
    device: torch.device

    @torch.inference_mode()
    def __call__(self, obs: np.ndarray, env_ids: np.ndarray) -> np.ndarray:
        """Choose an action for each environment."""
        embeddings = embed(self.encoder, obs, self.background)
        actions = self.actor.act(
            self.quantizer.encode(embeddings),
            self.mask,
            generator=self.random,
            temperature=self.temperature or 1.0,
            deterministic=self.temperature == 0,
        )
        chosen: np.ndarray = actions.cpu().numpy()
        return chosen


def load_policy(
    layout: Layout, game: str, *, temperature: float, seed: int, device: torch.device
) -> RunPolicy:
    """The policy that a run's artifacts make in ``game``.

    Raises:
        ValueError: an artifact is missing or damaged, or the run's encoder has no background of the game.
    """
    encoder, backgrounds = load_encoder(layout.encoder)
    if game not in backgrounds:
        raise ValueError(f"the run has not seen {game}; it knows {', '.join(sorted(backgrounds))}")
    quantizer = frozen_quantizer(layout, device)
    actor = frozen_agent(layout, device).actor
    return RunPolicy(
        encoder=frozen(encoder).to(device, resolve_precision("auto", device)),
        quantizer=quantizer,
        actor=actor.on_codes(quantizer.codebooks),
        background=backgrounds[game].to(device),
        mask=torch.from_numpy(action_mask(game)).to(device),
        temperature=temperature,
        random=generator(device, seed, "policy", game),
        device=device,
    )
