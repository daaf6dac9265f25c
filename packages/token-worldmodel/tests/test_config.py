import json
from dataclasses import asdict

import numpy as np
import pytest
from token_worldmodel import WorldModel, WorldModelConfig


def test_reference_model_has_eleven_million_parameters() -> None:
    dim, ffn, layers = 384, 1536, 6
    block = 4 * dim * dim + 4 * dim + 2 * dim * ffn + ffn + dim + 4 * dim
    embeddings = (3 * 256 + 18 + 4 + 64) * dim
    heads = 3 * (dim * 256 + 256)
    assert sum(p.numel() for p in WorldModel(WorldModelConfig()).parameters()) == (
        layers * block + embeddings + heads + 2 * dim
    )


def test_survives_json() -> None:
    config = WorldModelConfig(num_levels=2, num_codes=(8, 4), loss_weights=(1.0, 0.5))
    assert WorldModelConfig(**json.loads(json.dumps(asdict(config)))) == config


def test_whole_numbers_of_numpy_are_taken_and_go_into_json() -> None:
    six, two = np.int64(6), np.int64(2)  # as gymnasium's Discrete.n is
    config = WorldModelConfig(num_levels=two, num_codes=[six, six], num_actions=six)
    assert json.loads(json.dumps(asdict(config)))["num_codes"] == [6, 6]
    assert WorldModelConfig(num_codes=six).codes == (6, 6, 6)


def test_one_number_of_codes_serves_every_level() -> None:
    assert WorldModelConfig(num_codes=9).codes == (9, 9, 9)
    assert WorldModelConfig(num_codes=(9, 8, 7)).codes == (9, 8, 7)


def test_weights_that_are_not_given_fit_any_number_of_levels() -> None:
    assert WorldModelConfig().loss_weights == (1.0, 0.5, 0.1)
    assert WorldModelConfig(num_levels=1).loss_weights == (1.0,)
    assert WorldModelConfig(num_levels=5).loss_weights == (1.0, 0.5, 0.1, 0.1, 0.1)
    assert WorldModelConfig(loss_weights=(0.5,)).loss_weights == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_layers": 0}, "num_layers is 0; give a whole number of at least 1"),
        ({"dim": 20, "num_heads": 6}, "dim is 20; give a multiple of num_heads, 6"),
        ({"num_codes": (8, 8)}, r"num_codes is \(8, 8\); give one whole number"),
        ({"num_codes": (8.0, 8, 8)}, "give one whole number of at least 2"),
        ({"num_codes": 256.0}, r"num_codes is 256\.0; give one whole number"),
        ({"loss_weights": (float("nan"), 1, 1)}, "give 3 of at least 0"),
        ({"num_codes": 1}, "num_codes is 1; give one whole number of at least 2"),
        ({"code_dim": -1}, "code_dim is -1; give the width of the codes' vectors, or 0"),
        ({"code_dim": True}, "code_dim is True; give the width"),
        ({"dropout": 1.0}, "dropout is 1.0; give a rate"),
        ({"dropout": "0.1"}, "dropout is '0.1'; give a rate"),
        ({"token_noise": None}, "token_noise is None; give a share"),
        ({"loss_weights": ("1", 1, 1)}, r"loss_weights is \('1', 1, 1\); give 3"),
        ({"token_noise": 0.6}, "token_noise is 0.6; give a share from 0 to 0.5"),
        ({"position": "slot"}, "position is 'slot'; choose one of token, step"),
        ({"mask": "none"}, "mask is 'none'; choose one of hierarchical, causal"),
        ({"detail": "all"}, "detail is 'all'; choose one of none, last, past"),
        ({"num_levels": 4, "loss_weights": (1.0, 0.5)}, "loss_weights is .*; give 4 of at least 0"),
        ({"loss_weights": (0.0, 0.0, 0.0)}, "one per level, not all 0"),
        ({"loss_weights": 1.0}, r"loss_weights is 1\.0; give a tuple of one per level"),
        ({"loss_weights": (1.0, -0.5, 0.1)}, "loss_weights is .*; give 3 of at least 0"),
    ],
)
def test_refuses(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WorldModelConfig(**values)
