"""Hierarchical residual vector quantization for PyTorch."""

from hrvq import metrics, sharing
from hrvq._alternatives import alternative_tokens
from hrvq._atlas import LevelAtlas, atlas
from hrvq._config import HRVQConfig
from hrvq._fitting import FitProgress, FitResult
from hrvq._quantizer import HRVQ, HRVQOutput
from hrvq.metrics import bits, code_counts, distortion, perplexity, persistence, usage
from hrvq.sharing import (
    Interval,
    counts_by_group,
    jensen_shannon,
    mutual_information,
    shared_code_share,
    usage_by_group,
)

__all__ = [
    "HRVQ",
    "FitProgress",
    "FitResult",
    "HRVQConfig",
    "HRVQOutput",
    "Interval",
    "LevelAtlas",
    "alternative_tokens",
    "atlas",
    "bits",
    "code_counts",
    "counts_by_group",
    "distortion",
    "jensen_shannon",
    "metrics",
    "mutual_information",
    "perplexity",
    "persistence",
    "shared_code_share",
    "sharing",
    "usage",
    "usage_by_group",
]
