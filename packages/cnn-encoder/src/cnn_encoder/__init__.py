"""A small CNN encoder for Atari frames, trained by temporal InfoNCE, with probes and a view-only decoder."""

from .checkpoint import load_encoder, save_encoder
from .contrastive import ClipBatch, ContrastiveConfig, ContrastiveObjective, info_nce
from .decoder import Decoder, DecoderBatch, DecoderConfig, DecoderObjective, load_decoder, save_decoder
from .embedding import embed, embed_batches, load_embeddings, resolve_precision, write_embeddings
from .encoder import Encoder, EncoderConfig, mean_frame, stack_frames
from .metrics import diversity, embedding_norm, state_correlation, temporal_consistency
from .probes import MLPProbeConfig, ProbeData, ProbeScore, linear_probe, mlp_probe

__all__ = [
    "ClipBatch",
    "ContrastiveConfig",
    "ContrastiveObjective",
    "Decoder",
    "DecoderBatch",
    "DecoderConfig",
    "DecoderObjective",
    "Encoder",
    "EncoderConfig",
    "MLPProbeConfig",
    "ProbeData",
    "ProbeScore",
    "diversity",
    "embed",
    "embed_batches",
    "embedding_norm",
    "info_nce",
    "linear_probe",
    "load_decoder",
    "load_embeddings",
    "load_encoder",
    "mean_frame",
    "mlp_probe",
    "resolve_precision",
    "save_decoder",
    "save_encoder",
    "stack_frames",
    "state_correlation",
    "temporal_consistency",
    "write_embeddings",
]
