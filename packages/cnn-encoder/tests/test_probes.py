import math
import warnings
from dataclasses import replace

import pytest
import torch
from cnn_encoder import MLPProbeConfig, ProbeData, linear_probe, mlp_probe, train_mlp_probe
from cnn_encoder.probes import score

SMALL = MLPProbeConfig(num_steps=150, hidden_dim=64, batch_size=128)
MODES = pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)]
)
PROBES = pytest.mark.parametrize("probe", [linear_probe, lambda a, b: mlp_probe(a, b, SMALL)])


def draw(n, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator)
    y = torch.stack([100 + 20 * x[:, 0] - 5 * x[:, 3], 30 * (x[:, 1] * x[:, 2]).tanh()], 1)
    return ProbeData(x, y)


def test_score_by_hand():
    labels = torch.tensor([[0.0, 5.0], [2.0, 5.0], [4.0, 9.0]])
    mask = torch.tensor([[True, True], [True, True], [True, False]])
    found = score(torch.tensor([[0.0, 5.0], [1.0, 4.0], [4.0, 0.0]]), ProbeData(labels, labels, mask))
    assert found.r2[0] == pytest.approx(1 - 1 / 8)  # squared error 1, total 4 + 0 + 4
    assert found.mean_error == pytest.approx((1 / 3, 1 / 2))
    assert math.isnan(found.r2[1])  # constant where it counts


def test_linear_probe_reads_what_is_linear_and_only_that():
    found = linear_probe(draw(2000, 0), draw(500, 1))
    assert found.r2[0] > 0.9999
    assert found.mean_error[0] < 0.1
    assert found.r2[1] < 0.1


def test_linear_probe_equals_least_squares_when_the_ridge_is_nothing():
    train, test = draw(50, 0), draw(20, 1)
    ones = torch.ones(50, 1)
    solution = torch.linalg.lstsq(
        torch.cat([train.features, ones], 1).double(), train.labels.double()
    ).solution
    expected = score(torch.cat([test.features, ones[:20]], 1).double() @ solution, test)
    found = linear_probe(train, test, ridge=0)
    assert found.r2 == pytest.approx(expected.r2, abs=1e-4)


def test_the_ridge_grows_with_the_rows_by_hand() -> None:
    # Variance 1, sum of squares 2, three rows: the slope of 1 shrinks to 2 / (2 + 3 * 2) = 1/4.
    x = torch.tensor([[-1.0], [0.0], [1.0]])
    found = linear_probe(ProbeData(x, x), ProbeData(x, x), ridge=2.0)
    assert found.mean_error[0] == pytest.approx((3 / 4 + 0 + 3 / 4) / 3)
    assert found.r2[0] == pytest.approx(1 - (3 / 4) ** 2)


def test_the_ridge_is_relative_to_the_mean_variance_by_hand() -> None:
    # Variances 1 and 27, mean 14, sums of squares 2 and 54: with 3 * 14 / 7 = 6 added to them the slopes of 1
    # shrink to 2 / 8 and 54 / 60.
    x = torch.tensor([[-1.0, 3.0], [0.0, -6.0], [1.0, 3.0]])
    found = linear_probe(ProbeData(x, x), ProbeData(x, x), ridge=1 / 7)
    assert found.mean_error == pytest.approx((3 / 4 * 2 / 3, 1 / 10 * 12 / 3))


def test_the_strongest_ridge_still_reads_the_mean() -> None:
    x, y = torch.tensor([[-1.0], [0.0], [1.0]]), torch.tensor([[9.0], [10.0], [14.0]])
    found = linear_probe(ProbeData(x, y), ProbeData(x, y), ridge=1e9)
    assert found.mean_error[0] == pytest.approx((2 + 1 + 3) / 3)  # 11 everywhere
    assert found.r2[0] == pytest.approx(0, abs=1e-6)


def test_mlp_probe_reads_what_is_not_linear():
    found = mlp_probe(
        draw(4000, 0), draw(500, 1), MLPProbeConfig(num_steps=300, hidden_dim=64, batch_size=256)
    )
    assert min(found.r2) > 0.95


@PROBES
def test_rows_out_of_play_do_not_count(probe):
    train, test = draw(1000, 0), draw(200, 1)
    mask = torch.rand(1000, 2, generator=torch.Generator().manual_seed(2)) < 0.7
    spoilt = torch.where(mask, train.labels, torch.tensor(1e4))
    test_mask = torch.ones(200, 2, dtype=torch.bool)
    clean = probe(train._replace(mask=mask), test._replace(mask=test_mask))
    assert probe(ProbeData(train.features, spoilt, mask), test) == clean
    assert clean.r2[0] > 0.9


@pytest.mark.parametrize(("rows", "value"), [(100, 1 / 3), (1000, 0.1), (12345, 7.3)])
def test_what_is_constant_has_no_r2_whatever_its_mean_rounds_to(rows, value):
    labels = torch.full((rows, 1), value, dtype=torch.float64)
    found = score(labels + 1, ProbeData(torch.zeros(rows, 2), labels))
    assert math.isnan(found.r2[0])
    assert found.mean_error[0] == pytest.approx(1)


@PROBES
def test_a_variable_never_in_play_is_nan_and_harms_no_other(probe):
    train, test = draw(500, 0), draw(100, 1)
    mask = torch.tensor([True, False]).expand(500, 2)
    found = probe(train._replace(mask=mask), test)
    assert found.r2[0] > 0.9
    assert math.isnan(found.r2[1])


def test_a_variable_seldom_in_play_counts_as_much_as_one_that_always_is() -> None:
    """Two hidden units have room for one column: three labels of the one outweigh a label of the other."""
    x = 2 * torch.rand(1000, 2, generator=torch.Generator().manual_seed(0)) - 1
    y = x[:, [0, 1, 1, 1]]
    mask = torch.ones(1000, 4, dtype=torch.bool)
    mask[50:, 1:] = False
    config = MLPProbeConfig(hidden_dim=2, num_steps=150, batch_size=256, learning_rate=5e-2, seed=1)
    found = mlp_probe(ProbeData(x, y, mask), ProbeData(x, y), config)
    assert min(found.r2[1:]) > 0.95


def test_mlp_probe_is_scored_on_what_it_has_not_seen():
    rng = torch.Generator().manual_seed(0)
    noise = [ProbeData(torch.randn(100, 30, generator=rng), torch.randn(100, 1, generator=rng)) for _ in "ab"]
    assert mlp_probe(noise[0], noise[0], SMALL).r2[0] > 0.9  # learned by heart
    assert mlp_probe(*noise, SMALL).r2[0] < 0


@PROBES
def test_a_probe_takes_features_that_still_have_a_gradient(probe):
    train, test = draw(200, 0), draw(50, 1)
    once = ProbeData(train.features.clone().requires_grad_() * 1, train.labels)
    assert probe(once, test) == probe(train, test)


@PROBES
def test_train_and_test_are_of_one_form(probe):
    train, test = draw(200, 0), draw(50, 1)
    for part, wrong in (("features", test.features[:, :4]), ("labels", test.labels[:, 1:])):
        with pytest.raises(ValueError, match=f"the train {part} have . columns and the test {part} .; give"):
            probe(train, test._replace(**{part: wrong}))


def test_a_kept_probe_reads_any_rows_as_it_was_scored():
    train, test = draw(300, 0), draw(60, 1)
    probe = train_mlp_probe(train, SMALL)
    read = probe.read(test.features.view(3, 20, -1))
    assert read.shape == (3, 20, test.labels.shape[1])
    assert not read.requires_grad
    assert score(read.flatten(0, 1), test) == mlp_probe(train, test, SMALL)


@MODES
@PROBES
def test_a_probe_is_the_same_whatever_mode_it_is_asked_in(probe, mode):
    expected = probe(draw(300, 0), draw(60, 1))
    with mode():
        assert probe(draw(300, 0), draw(60, 1)) == expected


@PROBES
def test_a_probe_leaves_the_programs_randomness_as_it_was(probe):
    data, before = draw(100, 0), torch.get_rng_state()
    probe(data, data)
    assert torch.equal(torch.get_rng_state(), before)


def test_mlp_probe_repeats_itself():
    config = MLPProbeConfig(num_steps=20, seed=3)
    assert mlp_probe(draw(100, 0), draw(50, 1), config) == mlp_probe(draw(100, 0), draw(50, 1), config)
    other = replace(config, seed=4)
    assert mlp_probe(draw(100, 0), draw(50, 1), config) != mlp_probe(draw(100, 0), draw(50, 1), other)
    with pytest.raises(ValueError, match="num_steps is 0"):
        MLPProbeConfig(num_steps=0)
    with pytest.raises(ValueError, match="num_steps is '3'"):
        MLPProbeConfig(num_steps="3")
    with pytest.raises(ValueError, match=r"seed is 1\.5"):
        MLPProbeConfig(seed=1.5)
    with pytest.raises(ValueError, match="learning_rate is nan"):
        MLPProbeConfig(learning_rate=math.nan)


def _readable(n=300):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n, 8, generator=generator)
    return features, features[:, :2] * 3 + 5


def _spoilt(labels):
    labels = labels.clone()
    labels[7, 1] = torch.inf
    return labels


@pytest.mark.parametrize("probe", [linear_probe, mlp_probe])
def test_features_and_labels_of_other_rows_are_refused(probe):
    features, labels = _readable()
    good = ProbeData(features, labels)
    for wrong, message in (
        (ProbeData(features, labels[3:]), r"features are \(300, 8\) and the labels \(297, 2\)"),
        (ProbeData(features, labels[:, 0]), r"the labels \(300,\)"),
        (ProbeData(features[:0], labels[:0]), "N at least 1"),
        (ProbeData(features.masked_fill(features > 2.9, torch.nan), labels), "features hold NaN"),
        (ProbeData(features, _spoilt(labels)), "labels hold NaN or infinity in column 1"),
        (ProbeData(features, labels, torch.ones(300, 2).long()), "mask is torch.int64"),
        (ProbeData(features, labels, torch.ones(300, 1, dtype=torch.bool)), "mask is torch.bool"),
    ):
        with pytest.raises(ValueError, match=f"train {message}|train .*{message}"):
            probe(wrong, good)
        with pytest.raises(ValueError, match="the test"):
            probe(good, wrong)


def test_labels_that_do_not_count_may_be_anything():
    features, labels = _readable()
    mask = torch.ones_like(labels, dtype=torch.bool)
    mask[:50] = False
    known = ProbeData(features, labels, mask)
    unknown = ProbeData(features, labels.masked_fill(~mask, torch.nan), mask)
    config = MLPProbeConfig(num_steps=50)
    assert mlp_probe(unknown, unknown, config) == mlp_probe(known, known, config)


@pytest.mark.parametrize("probe", [linear_probe, mlp_probe])
def test_one_row_tells_its_own_labels(probe):
    features, labels = _readable()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = probe(ProbeData(features[:1], labels[:1]), ProbeData(features[:1], labels[:1]))
    assert found.mean_error == pytest.approx((0, 0), abs=1e-3)


def test_one_row_may_be_read_by_itself():
    data = ProbeData(*_readable())
    probe = train_mlp_probe(data, MLPProbeConfig(num_steps=5))
    assert torch.equal(probe.read(data.features[3]), probe.read(data.features[3:4])[0])


@pytest.mark.parametrize("probe", [linear_probe, mlp_probe])
def test_the_programs_device_changes_nothing(probe):
    data = ProbeData(*_readable())
    config = () if probe is linear_probe else (MLPProbeConfig(num_steps=5),)
    expected = probe(data, data, *config)
    with torch.device("meta"):
        assert probe(data, data, *config) == expected


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 11])
def test_any_number_of_steps(steps):
    data = ProbeData(*_readable())
    assert len(mlp_probe(data, data, MLPProbeConfig(num_steps=steps)).r2) == 2


@pytest.mark.parametrize("ridge", [-1.0, math.nan, math.inf])
def test_a_ridge_is_a_finite_number_of_at_least_0(ridge):
    data = ProbeData(torch.eye(9), torch.eye(9))
    with pytest.raises(ValueError, match=f"ridge is {ridge}; give a finite number"):
        linear_probe(data, data, ridge=ridge)


def test_a_probe_reads_features_of_its_own_width():
    features = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    probe = train_mlp_probe(ProbeData(features, features[:, :2]), MLPProbeConfig(num_steps=2))
    for width in (1, 3):
        with pytest.raises(ValueError, match=rf"features are \(20, {width}\); the probe reads \(..., 8\)"):
            probe.read(features[:, :width])


def test_a_constant_beside_it_changes_nothing_of_a_variable():
    train, test = draw(3000, 0), draw(500, 1)
    found = []
    for constant in (150.0, 30000.3):  # the mean of the second is no float32
        beside = [
            ProbeData(data.features, torch.cat([data.labels, torch.full((len(data.labels), 1), constant)], 1))
            for data in (train, test)
        ]
        found.append(mlp_probe(*beside, SMALL).r2[:2])
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.mark.parametrize("shape", [(0, 6), (6,), (2, 3, 6), (2, 0, 6)])
def test_a_kept_probe_reads_any_number_of_rows(shape):
    probe = train_mlp_probe(draw(64, 0), SMALL)
    assert probe.read(torch.zeros(shape)).shape == (*shape[:-1], 2)


def test_the_ridge_counts_the_rows_in_play():
    x = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    y = x[:, :1]
    half = ProbeData(x, y)
    both = ProbeData(x.repeat(2, 1), y.repeat(2, 1), (torch.arange(1000) < 500)[:, None])
    alone = linear_probe(half, half, ridge=1.0).r2
    assert linear_probe(both, half, ridge=1.0).r2 == pytest.approx(alone, abs=0.01)


@PROBES
@pytest.mark.parametrize("scale", [1e-12, 1e19])
def test_the_scale_of_the_features_does_not_matter(probe, scale) -> None:
    train, test = draw(400, 0), draw(200, 1)
    plain = probe(train, test)
    scaled = probe(*(data._replace(features=data.features * scale) for data in (train, test)))
    assert scaled.r2 == pytest.approx(plain.r2, abs=0.02)


def test_features_beyond_float32_are_refused() -> None:
    data = draw(20, 0)
    far = data._replace(features=data.features.double() * 1e39)
    with pytest.raises(ValueError, match="train features hold NaN or infinity in float32"):
        linear_probe(far, data)


@PROBES
def test_the_programs_default_dtype_changes_nothing(probe) -> None:
    train, test = draw(100, 0), draw(50, 1)
    plain = probe(train, test)
    torch.set_default_dtype(torch.float64)
    try:
        assert probe(train, test).r2 == pytest.approx(plain.r2, abs=1e-5)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_mask_is_a_tensor() -> None:
    data = draw(20, 0)
    masked = data._replace(mask=torch.ones(20, 2, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"train mask is torch.uint8 \(20, 2\); give a torch.bool tensor"):
        linear_probe(masked, data)


@PROBES
def test_features_and_labels_may_be_arrays(probe) -> None:
    parts = [draw(100, 0), draw(50, 1)]
    masked = [data._replace(mask=torch.ones(len(data.labels), 2, dtype=torch.bool)) for data in parts]
    arrays = [ProbeData(*(part.numpy() for part in data)) for data in masked]
    assert probe(*arrays) == probe(*parts)
