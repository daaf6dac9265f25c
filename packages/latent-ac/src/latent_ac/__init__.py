"""Actor-critic learning on latent features: policy, value, predictors, returns and losses."""

from latent_ac.actor import Actor, ActorConfig, CodePolicy
from latent_ac.agent import Agent, load_agent, save_agent
from latent_ac.batch import ImaginedBatch
from latent_ac.calibration import Calibration, calibration, expected_calibration_error
from latent_ac.categorical import action_mask, entropy, log_prob, mask_logits
from latent_ac.critic import Critic, CriticConfig, SlowTarget
from latent_ac.features import CodeFeatures, Features
from latent_ac.losses import PPOLoss, ppo_loss, reinforce_loss
from latent_ac.objective import ActorCriticObjective, AgentConfig
from latent_ac.predictor_objective import PredictorObjective, TransitionBatch, evaluate_predictors
from latent_ac.predictors import ContinuePredictor, PredictorConfig, RewardPredictor
from latent_ac.returns import ReturnNormalizer, lambda_returns, survival
from latent_ac.rewards import transform_rewards
from latent_ac.two_hot import symexp, symexp_bins, symlog, two_hot, two_hot_cross_entropy

__all__ = [
    "Actor",
    "ActorConfig",
    "ActorCriticObjective",
    "Agent",
    "AgentConfig",
    "Calibration",
    "CodeFeatures",
    "CodePolicy",
    "ContinuePredictor",
    "Critic",
    "CriticConfig",
    "Features",
    "ImaginedBatch",
    "PPOLoss",
    "PredictorConfig",
    "PredictorObjective",
    "ReturnNormalizer",
    "RewardPredictor",
    "SlowTarget",
    "TransitionBatch",
    "action_mask",
    "calibration",
    "entropy",
    "evaluate_predictors",
    "expected_calibration_error",
    "lambda_returns",
    "load_agent",
    "log_prob",
    "mask_logits",
    "ppo_loss",
    "reinforce_loss",
    "save_agent",
    "survival",
    "symexp",
    "symexp_bins",
    "symlog",
    "transform_rewards",
    "two_hot",
    "two_hot_cross_entropy",
]
