import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cnn_encoder import (
    AtariARIConfig,
    LabelledFeatures,
    atariari,
    atariari_probe,
    entropy,
    unseen_frames,
    weighted_f1,
)
from cnn_encoder.atariari import _fit, _Whitening


def test_entropy_in_nats():
    assert entropy(torch.tensor([3, 3, 7, 7])) == pytest.approx(math.log(2))
    assert entropy(torch.full((5,), 255)) == 0


def test_weighted_f1_by_hand():
    # Class 0: 2 true, 1 claimed, 1 hit: F1 = 2/3. Class 1: 1 true, 2 claimed, 1 hit: 2/3. Class 2: 1.
    labels, predicted = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 2])
    assert weighted_f1(predicted, labels) == pytest.approx((2 * 2 / 3 + 2 / 3 + 1) / 4)
    assert weighted_f1(labels, labels) == 1
    assert weighted_f1(torch.full((4,), 9), labels) == 0


def test_unseen_frames_are_those_equal_to_no_training_frame():
    train = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    test = np.stack([train[1], train[1] + 1, train[2]])
    assert unseen_frames(train, test).tolist() == [False, True, False]
    for other in (test.astype(np.int64), test[:, None]):
        with pytest.raises(ValueError, match="give both alike, or none can be equal"):
            unseen_frames(train, other)


def test_whitening_does_not_take_the_mean_for_variance_and_may_be_done_in_parts(monkeypatch):
    x = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)) + 1000
    white = _Whitening(x)(x)
    torch.testing.assert_close(white.var(0), torch.ones(4), atol=0.01, rtol=0)
    monkeypatch.setattr(atariari, "_CHUNK", 300)
    torch.testing.assert_close(_Whitening(x)(x).abs(), white.abs(), atol=1e-4, rtol=1e-4)


def draw(n, seed):
    generator = torch.Generator().manual_seed(seed)
    ball, score = torch.randint(0, 6, (2, n), generator=generator)
    features = torch.cat([torch.eye(6)[ball], torch.randn(n, 4, generator=generator)], 1)
    return LabelledFeatures(features, torch.stack([40 * ball, score, torch.zeros(n, dtype=torch.long)], 1))


def test_protocol_keeps_reads_and_groups():
    config = AtariARIConfig(max_epochs=100)
    names = ["ball_x", "enemy_score", "num_lives"]
    found = atariari_probe(draw(2000, 0), draw(400, 1), draw(400, 2), names, config)
    assert found.dropped == ("num_lives",)
    assert found.variables["ball_x"] > 0.99  # it is in the features
    assert found.variables["enemy_score"] < 0.35  # it is not; chance is 1/6
    assert found.categories == {
        "small object": found.variables["ball_x"],
        "score/clock/lives": found.variables["enemy_score"],
    }
    assert found.mean == pytest.approx(sum(found.variables.values()) / 2)


@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
def test_the_score_is_the_same_whatever_mode_it_is_asked_in(mode):
    names, config = ["ball_x", "enemy_score", "num_lives"], AtariARIConfig(max_epochs=5)
    expected = atariari_probe(draw(500, 0), draw(100, 1), draw(100, 2), names, config)
    with mode():
        assert atariari_probe(draw(500, 0), draw(100, 1), draw(100, 2), names, config) == expected


def test_what_lies_in_a_weak_direction_is_read_as_well():
    """An embedding's variance may lie almost all in one direction; the probe is of what is linear in it."""
    mix = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(9))).Q

    def crumpled(n, seed):
        features, labels = draw(n, seed)
        scale = torch.tensor([1.0] * 6 + [30.0] * 4)
        return LabelledFeatures(features * scale @ mix, labels[:, :1])

    config = AtariARIConfig(max_epochs=100)
    found = atariari_probe(crumpled(2000, 0), crumpled(400, 1), crumpled(400, 2), ["ball_x"], config)
    assert found.mean > 0.99


def test_bytes_as_the_ram_has_them_are_labels():
    config = AtariARIConfig(max_epochs=3)
    parts = [draw(200, seed) for seed in range(3)]
    as_bytes = [LabelledFeatures(features, labels.byte()) for features, labels in parts]
    names = ["ball_x", "enemy_score", "num_lives"]
    assert atariari_probe(*as_bytes, names, config) == atariari_probe(*parts, names, config)
    arrays = [LabelledFeatures(features.numpy(), labels.numpy()) for features, labels in as_bytes]
    assert atariari_probe(*arrays, names, config) == atariari_probe(*parts, names, config)


def test_more_epochs_never_cost_the_validation():
    """Of noise a probe learns the training rows by heart; what counts are the weights before it did."""
    rng = torch.Generator().manual_seed(0)
    x, x_validation = torch.randn(2, 60, 40, generator=rng)
    labels, labels_validation = torch.randint(0, 3, (2, 60, 1), generator=rng)
    losses = []
    for epochs in (1, 3, 30):
        config = AtariARIConfig(learning_rate=0.05, max_epochs=epochs, patience=30)
        weight, bias = _fit(x, labels, x_validation, labels_validation, config)
        losses.append(F.cross_entropy(x_validation @ weight + bias, labels_validation[:, 0]).item())
    assert losses[0] >= losses[1] >= losses[2]


def test_a_variable_stops_where_it_would_have_stopped_alone() -> None:
    """Others that still learn give it no second chance; of noise validation losses go up and down again."""
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(3, 40, 10, generator=rng)
    labels = torch.randint(0, 2, (3, 40, 4), generator=rng)
    config = AtariARIConfig(learning_rate=0.3, batch_size=10, max_epochs=20, patience=1)

    def f1(names: str) -> dict[str, float]:
        of_names = labels[..., ["abcd".index(name) for name in names]]
        return atariari_probe(*map(LabelledFeatures, features, of_names), list(names), config).variables

    alone = {name: value for one in "abcd" for name, value in f1(one).items()}
    assert f1("abcd") == pytest.approx(alone)


def test_wrong_input_is_one_clear_sentence():
    data = draw(20, 0)
    with pytest.raises(ValueError, match=r"train features .* with 2 names, \(N, 2\)"):
        atariari_probe(data, data, data, ["a", "b"])
    with pytest.raises(ValueError, match="names are a, b, a; give each name once"):
        atariari_probe(data, data, data, ["a", "b", "a"])
    for name, other in (
        ("test", data._replace(labels=data.labels[:, :2])),
        ("validation", data._replace(labels=data.labels[:, 0])),
        ("test", data._replace(features=data.features[:, :9])),
    ):
        parts = {"train": data, "validation": data, "test": data, name: other}
        with pytest.raises(ValueError, match=f"{name} features are .*; expected"):
            atariari_probe(*parts.values(), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"entropy of 9\.0 nats"):
        atariari_probe(data, data, data, ["a", "b", "c"], AtariARIConfig(min_entropy=9.0))
    lost = data._replace(features=data.features.masked_fill(data.features > 1, torch.nan))
    with pytest.raises(ValueError, match="test features hold NaN"):
        atariari_probe(data, data, lost, ["a", "b", "c"])
    between = data._replace(labels=data.labels + 0.5)
    with pytest.raises(
        ValueError, match=r"test labels are torch.float32; give bytes of the RAM, as integers"
    ):
        atariari_probe(data, data, between, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"max_epochs is 2\.5; give a whole number"):
        AtariARIConfig(max_epochs=2.5)
    with pytest.raises(ValueError, match="patience is 0"):
        AtariARIConfig(patience=0)
    with pytest.raises(ValueError, match="min_entropy is nan"):
        AtariARIConfig(min_entropy=math.nan)


def test_features_and_labels_of_other_rows_are_refused():
    features, labels = torch.randn(40, 4), torch.randint(0, 5, (40, 2))
    good, wrong = LabelledFeatures(features, labels), LabelledFeatures(features[3:], labels)
    none = LabelledFeatures(features[:0], labels[:0])
    for parts in ((wrong, good, good), (good, wrong, good), (good, good, wrong), (good, good, none)):
        with pytest.raises(ValueError, match="give equally many, at least one"):
            atariari_probe(*parts, ["a_x", "b_x"])


def test_f1_of_any_classes_and_of_none():
    assert weighted_f1(torch.tensor([300, 3]), torch.tensor([3, 3])) == pytest.approx(2 / 3)
    none = torch.empty(0, dtype=torch.int64)
    assert math.isnan(weighted_f1(none, none))
    assert math.isnan(entropy(none))
    with pytest.raises(ValueError, match=r"predicted have shape \(1,\) and labels \(2,\); give \(N,\) each"):
        weighted_f1(torch.tensor([1]), torch.tensor([1, 1]))


def test_probes_of_many_rows_are_those_of_all_at_once(monkeypatch):
    names, config = ["ball_x", "enemy_score", "num_lives"], AtariARIConfig(max_epochs=5)
    whole = atariari_probe(draw(200, 0), draw(90, 1), draw(90, 2), names, config)
    monkeypatch.setattr("cnn_encoder.atariari._CHUNK", 7)
    parts = atariari_probe(draw(200, 0), draw(90, 1), draw(90, 2), names, config)
    assert parts.variables == pytest.approx(whole.variables, abs=1e-6)
