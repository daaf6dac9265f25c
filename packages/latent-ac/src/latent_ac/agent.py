"""The parts of an agent in one container, and their file."""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from latent_ac._artifact import load_artifact, save_artifact
from latent_ac._weights import plain_weights, with_weights
from latent_ac.actor import Actor, ActorConfig
from latent_ac.critic import Critic, CriticConfig
from latent_ac.features import CodeFeatures, Features
from latent_ac.predictors import ContinuePredictor, PredictorConfig, RewardPredictor

KIND = "agent"


class Agent(nn.Module):
    """Actor, critic and the two predictors, all for the same number of actions.

    Actor and critic see all features. The predictors may be narrower: then they see only the codes, or the
    beginning of features that are vectors, and can be trained where no state is known.

    Args:
        actor: configuration of the actor.
        critic: configuration of the critic.
        predictor: configuration of both predictors.
        generator: draws the initial weights.

    Raises:
        ValueError: the configurations disagree on the width of the features or the number of actions.
    """

    def __init__(
        self,
        actor: ActorConfig,
        critic: CriticConfig,
        predictor: PredictorConfig,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        widths = (actor.feature_dim, critic.feature_dim, predictor.feature_dim)
        if widths[0] != widths[1] or widths[2] > widths[0]:
            raise ValueError(
                f"feature_dim of actor, critic and predictor are {widths}; give actor and critic the same, "
                "and the predictor that or less"
            )
        if actor.num_actions != predictor.num_actions:
            raise ValueError(
                f"num_actions of actor and predictor are {actor.num_actions} and {predictor.num_actions}; "
                "give both the same"
            )
        self.actor = Actor(actor, generator=generator)
        self.critic = Critic(critic, generator=generator)
        self.reward = RewardPredictor(predictor, generator=generator)
        self.continue_ = ContinuePredictor(predictor, generator=generator)

    @torch.no_grad()
    def predict(
        self, features: Features, actions: Tensor, *, transform: str = "raw"
    ) -> tuple[Tensor, Tensor]:
        """Expected rewards and continuation probabilities of whole trajectories, float32 (H, B) each.

        One pass over all steps at once: they are not needed while a dream runs.

        Args:
            features: (H+1, B, F), as for the actor; only the part that the predictors see is used.
            actions: int64 (H, B).
            transform: of the rewards, inside the expectation (see ``RewardPredictor.forward``): a reward of 7
                with probability 0.1 has an expected clipped reward of 0.1, whereas clipping the expected 0.7
                leaves 0.7.

        Raises:
            ValueError: the shapes do not fit, or the transform is unknown.
        """
        if actions.ndim != 2 or features.shape[:-1] != (len(actions) + 1, actions.shape[1]):
            raise ValueError(
                f"features {tuple(features.shape)} and actions {tuple(actions.shape)} do not fit; "
                "give (H+1, B, F) and (H, B)"
            )
        width = self.reward.config.feature_dim
        if features.shape[-1] > width:
            features = features.codes if isinstance(features, CodeFeatures) else features[..., :width]
        now, after = features[:-1], features[1:]
        rewards = self.reward(now, actions, after, transform=transform)
        return rewards, self.continue_(now, actions, after)


def save_agent(path: str | Path, agent: Agent) -> None:
    """Write the agent's weights and configurations to one safetensors file of kind "agent".

    Raises:
        ValueError: the agent is not a plain ``Agent``, so ``load_agent`` could not rebuild it.
    """
    weights = plain_weights(agent, Agent)
    config = {
        "actor": dataclasses.asdict(agent.actor.config),
        "critic": dataclasses.asdict(agent.critic.config),
        "predictor": dataclasses.asdict(agent.reward.config),
    }
    save_artifact(path, weights, kind=KIND, config=config)


def load_agent(path: str | Path) -> Agent:
    """Read an agent, on the CPU and in eval mode; the file is all that is needed.

    Raises:
        ValueError: the file is missing, damaged or of another kind, or its weights do not fit its settings.
    """
    tensors, config = load_artifact(path, kind=KIND)

    def make() -> Agent:
        return Agent(
            ActorConfig(**config["actor"]),
            CriticConfig(**config["critic"]),
            PredictorConfig(**config["predictor"]),
        )

    return with_weights(path, make, tensors)
