from dataclasses import replace

import pytest
import torch
from command import wm
from safetensors.torch import load_file, save_file
from token_worldmodel import TokenBatch, WorldModel, WorldModelConfig
from wm.measure.model_checks import check_worldmodel


@pytest.fixture(params=["token", "step"])
def model(request):
    torch.manual_seed(0)
    sizes = {"dim": 32, "ffn_dim": 64, "num_layers": 2, "num_heads": 2, "max_steps": 8, "num_codes": 16}
    return WorldModel(WorldModelConfig(**sizes, position=request.param))


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(0)
    unused = torch.zeros(4, 8)
    return TokenBatch(
        tokens=torch.randint(16, (4, 8, 3), generator=draw),
        actions=torch.randint(18, (4, 8), generator=draw),
        rewards=unused,
        terminated=unused.bool(),
        truncated=unused.bool(),
        final=unused.bool(),
        lives=unused.long(),
        game_index=torch.zeros(4, dtype=torch.int64),
    )


def failed(model, batch):
    return [check.name for check in check_worldmodel(model, batch) if not check.holds]


def test_a_sound_model_passes_and_is_left_as_it_was(model, batch):
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.train()
    assert failed(model, batch) == []
    assert model.training
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_model_that_sees_the_future_is_found(model, batch, monkeypatch):
    embed = model.embed

    def leaking(*arguments):
        x = embed(*arguments)
        return x + x.mean(1, keepdim=True)

    monkeypatch.setattr(model, "embed", leaking)
    assert {"L0 changes nothing before it", "an action changes nothing before it"} <= set(
        failed(model, batch)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_weights": (1.0, 0.5, 0.0)},
        {"loss_weights": (1.0, 0.0, 0.1)},
        {"loss_weights": (1.0, 0.0, 0.0)},
        {"num_actions": 1},
    ],
)
def test_what_a_configuration_leaves_out_is_not_missed(model, batch, changes):
    odd = WorldModel(replace(model.config, **changes))
    if "num_actions" in changes:
        batch = replace(batch, actions=torch.zeros_like(batch.actions))
    assert failed(odd, batch) == []


def test_nan_and_dead_weights_are_found(model, batch):
    with torch.no_grad():
        model.heads[1].bias[3] = torch.nan
    assert "no NaN, no infinity" in failed(model, batch)
    with torch.no_grad():
        model.heads[1].bias[3] = 0.0
        model.blocks[0].expand.weight.zero_()
        model.blocks[0].expand.bias.fill_(-50.0)  # nothing passes this branch any more
    assert "every parameter learns" in failed(model, batch)


def test_a_window_across_an_end_is_found(model, batch):
    batch.final[2, 3] = True
    assert failed(model, batch) == ["windows stay inside episodes"]


def test_a_run_with_a_broken_model_is_refused_after_the_table(run, tmp_path):
    import shutil

    copy = shutil.copytree(run, tmp_path / "copy", copy_function=shutil.copy2)
    from safetensors import safe_open

    path = copy / "worldmodel.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("expand.weight"))
    weights[name] = torch.zeros_like(weights[name])
    weights[name.replace("weight", "bias")].fill_(-50.0)
    save_file(weights, path, metadata=metadata)
    done = wm("eval", copy, "--stage", "worldmodel", "--json", tmp_path / "m.json", "--device", "cpu")
    assert done.code == 2
    assert "is not sound; failed checks: every parameter learns" in " ".join(done.output.split())
    assert (tmp_path / "m.json").exists()


def test_gradients_and_modes_come_back_and_hide_nothing(model, batch):
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model.blocks[0].eval()
    detached = model.embed

    def embed(*arguments):
        return detached(*arguments).detach()

    model.embed = embed
    assert "every parameter learns" in failed(model, batch)
    assert all(bool((parameter.grad == 1).all()) for parameter in model.parameters())
    assert [block.training for block in model.blocks] == [False, True]
