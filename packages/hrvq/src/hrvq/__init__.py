"""Hierarchical residual vector quantization for PyTorch."""

from hrvq._config import HRVQConfig
from hrvq._fitting import FitProgress, FitResult
from hrvq._quantizer import HRVQ, HRVQOutput

__all__ = ["HRVQ", "FitProgress", "FitResult", "HRVQConfig", "HRVQOutput"]
