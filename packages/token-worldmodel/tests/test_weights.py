import numpy as np
import pytest
import torch
from token_worldmodel import load_worldmodel, save_worldmodel
from token_worldmodel._artifact import load_artifact, save_artifact


@pytest.mark.parametrize("variant", [{"mask": "causal"}, {"position": "step", "code_dim": 3}])
def test_round_trip_needs_the_file_alone(make_model, make_window, tmp_path, variant) -> None:
    model = make_model(num_levels=2, **variant)
    for name in ("a", "b"):
        save_worldmodel(tmp_path / f"{name}.safetensors", model)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    loaded = load_worldmodel(tmp_path / "a.safetensors")
    window = make_window(model, 2, 6)
    assert loaded.config == model.config
    assert torch.equal(loaded(*window).hidden, model(*window).hidden)
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_weights_that_could_not_be_read_again_replace_none(make_model, tmp_path) -> None:
    model = make_model()
    save_worldmodel(tmp_path / "w.safetensors", model)
    before = (tmp_path / "w.safetensors").read_bytes()
    torch.nn.init.constant_(model.norm.weight, torch.nan)
    with pytest.raises(
        ValueError, match=r"norm\.weight of the WorldModel holds NaN or infinity; nothing was"
    ):
        save_worldmodel(tmp_path / "w.safetensors", model)
    assert (tmp_path / "w.safetensors").read_bytes() == before


def test_numbers_of_numpy_are_kept(make_model, tmp_path) -> None:
    """Such as a sweep over ``np.linspace`` gives."""
    model = make_model(dropout=np.float32(0.25), loss_weights=tuple(np.array([1.0, 0.5, 0.1])))
    save_worldmodel(tmp_path / "w.safetensors", model)
    assert load_worldmodel(tmp_path / "w.safetensors").config == model.config


def test_the_programs_device_has_no_say(make_model, tmp_path) -> None:
    save_worldmodel(tmp_path / "w.safetensors", make_model())
    with torch.device("meta"):
        loaded = load_worldmodel(tmp_path / "w.safetensors")
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu"}


def test_the_programs_dtype_has_no_say(make_model, tmp_path) -> None:
    model = make_model()
    save_worldmodel(tmp_path / "w.safetensors", model)
    torch.set_default_dtype(torch.bfloat16)
    try:
        loaded = load_worldmodel(tmp_path / "w.safetensors")
    finally:
        torch.set_default_dtype(torch.float32)
    expected = model.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in loaded.state_dict().items())


def test_refuses_weights_of_another_configuration(make_model, tmp_path) -> None:
    path = tmp_path / "w.safetensors"
    save_worldmodel(path, make_model())
    weights, config = load_artifact(path, kind="worldmodel")
    save_artifact(path, weights, kind="worldmodel", config=config | {"num_layers": 1})
    with pytest.raises(ValueError, match=r"its settings describe \(blocks\.1\..* and \d+ more\);"):
        load_worldmodel(path)
    save_artifact(path, weights, kind="worldmodel", config=config | {"rotary": True})
    with pytest.raises(ValueError, match=r"this version does not understand .*rotary"):
        load_worldmodel(path)
    save_artifact(path, weights, kind="encoder", config=config)
    with pytest.raises(ValueError, match=r"is of kind encoder, .* expected worldmodel"):
        load_worldmodel(path)
    with pytest.raises(ValueError, match="does not exist"):
        load_worldmodel(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "change", [{"dim": None}, {"dim": 7}, {"dropout": "much"}, {"loss_weights": None}, {"num_codes": ["a"]}]
)
def test_refuses_a_configuration_that_cannot_be(make_model, tmp_path, change) -> None:
    path = tmp_path / "w.safetensors"
    save_worldmodel(path, make_model())
    weights, config = load_artifact(path, kind="worldmodel")
    save_artifact(path, weights, kind="worldmodel", config=config | change)
    with pytest.raises(ValueError, match=r"w\.safetensors has settings that this version does not"):
        load_worldmodel(path)


def test_a_compiled_model_is_kept_as_what_it_is(make_model, tmp_path) -> None:
    model = make_model()
    save_worldmodel(tmp_path / "a.safetensors", model)
    save_worldmodel(tmp_path / "b.safetensors", torch.compile(model))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_narrow_model_is_kept_in_float32(make_model, tmp_path) -> None:
    model = make_model().bfloat16()
    save_worldmodel(tmp_path / "w.safetensors", model)
    kept = load_worldmodel(tmp_path / "w.safetensors")
    assert {parameter.dtype for parameter in kept.parameters()} == {torch.float32}
    assert all(
        torch.equal(weight.bfloat16(), model.state_dict()[n]) for n, weight in kept.state_dict().items()
    )
