"""A small CNN encoder for Atari frames, trained by temporal InfoNCE, with probes and a view-only decoder."""

from .atariari import (
    AtariARIConfig,
    AtariARIScore,
    LabelledFeatures,
    atariari_probe,
    entropy,
    unseen_frames,
    weighted_f1,
)
from .augmentation import random_shift
from .contrastive import ClipBatch, ContrastiveConfig, ContrastiveObjective, info_nce
from .decoder import Decoder, DecoderBatch, DecoderConfig, DecoderObjective, load_decoder, save_decoder
from .dinov2 import DINOv2, load_dinov2
from .embedding import embed, embed_batches, load_embeddings, resolve_precision, write_embeddings
from .encoder import Encoder, EncoderConfig, load_encoder, mean_frame, save_encoder, stack_frames
from .layout import banded_layout, layout
from .metrics import diversity, embedding_norm, state_correlation, temporal_consistency
from .probes import (
    MLPProbe,
    MLPProbeConfig,
    ProbeData,
    ProbeScore,
    linear_probe,
    mlp_probe,
    train_mlp_probe,
)
from .retention import Retention, Stage, pixel_features, retention, retention_table
from .supervised import SupervisedBatch, SupervisedObjective
from .variables import CATEGORIES, StateLabels, category, state_labels

__all__ = [
    "CATEGORIES",
    "AtariARIConfig",
    "AtariARIScore",
    "ClipBatch",
    "ContrastiveConfig",
    "ContrastiveObjective",
    "DINOv2",
    "Decoder",
    "DecoderBatch",
    "DecoderConfig",
    "DecoderObjective",
    "Encoder",
    "EncoderConfig",
    "LabelledFeatures",
    "MLPProbe",
    "MLPProbeConfig",
    "ProbeData",
    "ProbeScore",
    "Retention",
    "Stage",
    "StateLabels",
    "SupervisedBatch",
    "SupervisedObjective",
    "atariari_probe",
    "banded_layout",
    "category",
    "diversity",
    "embed",
    "embed_batches",
    "embedding_norm",
    "entropy",
    "info_nce",
    "layout",
    "linear_probe",
    "load_decoder",
    "load_dinov2",
    "load_embeddings",
    "load_encoder",
    "mean_frame",
    "mlp_probe",
    "pixel_features",
    "random_shift",
    "resolve_precision",
    "retention",
    "retention_table",
    "save_decoder",
    "save_encoder",
    "stack_frames",
    "state_correlation",
    "state_labels",
    "temporal_consistency",
    "train_mlp_probe",
    "unseen_frames",
    "weighted_f1",
    "write_embeddings",
]
