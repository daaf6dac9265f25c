"""Which optimizer moves which weights, and how far."""

import copy
import pickle

import pytest
import torch
from token_worldmodel import MuonAdamW, make_optimizer, parameter_groups

WIDTH = 16  # of `model`


@pytest.fixture(params=["token", "step"])
def model(make_model, request):
    """With a gradient everywhere."""
    model = make_model(dim=WIDTH, num_heads=2, ffn_dim=4 * WIDTH, num_layers=2, position=request.param)
    draw = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    return model


def inside(model):
    named = [(name, p) for name, p in model.named_parameters() if name.startswith(("blocks.", "chain."))]
    return [p for name, p in named if p.ndim == 2 and "embedding" not in name]


def test_only_matrices_of_linear_layers_decay(make_model) -> None:
    model = make_model()
    decayed, kept = parameter_groups(model, 0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(decayed["params"]) + len(kept["params"]) == len(names)
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    for parameter in decayed["params"]:
        assert names[id(parameter)].startswith(("blocks.", "heads."))
        assert names[id(parameter)].endswith("weight")
        assert "norm" not in names[id(parameter)]
    assert all(p.ndim == 1 or "embedding" in names[id(p)] for p in kept["params"])
    with pytest.raises(ValueError, match="weight_decay is -1"):
        parameter_groups(model, -1)
    model.heads.requires_grad_(False)
    taught = [parameter for group in parameter_groups(model, 0.1) for parameter in group["params"]]
    assert len(taught) == len(names) - 2 * len(model.heads)  # what does not learn does not decay


def test_each_parameter_is_moved_by_one_optimizer(model):
    optimizer = MuonAdamW(model, lr=1e-2, weight_decay=0.3)
    groups = [{id(p) for p in group["params"]} for group in optimizer.param_groups]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(list(model.parameters()))
    assert groups[-1] == {id(p) for p in inside(model)}
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.0, 0.3]


def test_matrices_inside_step_along_an_orthogonal_one_and_the_rest_as_by_adamw(model):
    rate, decay = 1e-2, 0.1
    plain = copy.deepcopy(model)
    for parameter, same in zip(plain.parameters(), model.parameters(), strict=True):
        parameter.grad = same.grad.clone()
    before = [p.detach().clone() for p in inside(model)]
    MuonAdamW(model, lr=rate, weight_decay=decay).step()
    torch.optim.AdamW(parameter_groups(plain, decay), lr=rate, fused=True).step()
    for old, new in zip(before, inside(model), strict=True):
        step = (old * (1 - rate * decay) - new.detach()) / rate
        # All singular values alike, where the gradient's were not (Newton-Schulz leaves .7 to 1.2), and the
        # mean square of a step .2 squared, about AdamW's: .2 sqrt(max(A, B)) times an orthogonal matrix.
        strengths = torch.linalg.svdvals(step) / (0.2 * max(step.shape) ** 0.5)
        assert 0.6 < strengths.min() <= strengths.max() < 1.3, strengths
        assert 0.15 < step.square().mean().sqrt() < 0.25
        assert (step * new.grad).sum() > 0  # downhill
    taken = {id(p) for p in inside(model)}
    for (name, new), same in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(new, same) != (id(new) in taken), name


def test_a_schedule_sets_the_rate_of_every_group(model):
    before = copy.deepcopy(model.state_dict())
    optimizer = MuonAdamW(model, lr=1e-2, weight_decay=0.1)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert all(torch.equal(new, before[name]) for name, new in model.state_dict().items())


def test_it_goes_on_from_its_state(model):
    optimizer = MuonAdamW(model, lr=1e-2)
    optimizer.step()
    kept, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    optimizer.step()
    once = copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
    again = MuonAdamW(model, lr=1.0)
    again.load_state_dict(state)
    again.step()
    assert all(torch.equal(new, once[name]) for name, new in model.state_dict().items())
    assert {group["lr"] for group in again.param_groups} == {1e-2}
    for group in again.param_groups:  # those it steps by, not copies
        group["lr"] = 0.0
    again.step()
    assert all(torch.equal(new, once[name]) for name, new in model.state_dict().items())


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda both: pickle.loads(pickle.dumps(both))])
def test_a_copy_steps_the_copied_model(model, copied):
    optimizer = MuonAdamW(model, lr=1e-2)
    optimizer.step()
    other, again = copied((model, optimizer))
    for parameter, same in zip(other.parameters(), model.parameters(), strict=True):
        parameter.grad = same.grad.clone()
    optimizer.step()
    again.step()
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), model.parameters(), strict=True))


def test_a_closure_makes_the_gradients_and_its_loss_comes_back(model):
    optimizer = MuonAdamW(model, lr=1e-2)
    before = [p.detach().clone() for p in model.parameters()]

    def closure():
        optimizer.zero_grad()
        loss = sum(p.square().sum() for p in model.parameters())
        loss.backward()
        return loss

    with torch.no_grad():
        first = optimizer.step(closure)
    assert first > sum(p.square().sum() for p in model.parameters())
    assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_refuses_what_it_cannot_step(model):
    optimizer = MuonAdamW(model, lr=1e-2)
    with pytest.raises(ValueError, match="the parameters of one model"):
        optimizer.add_param_group({"params": [torch.zeros(2, 2, requires_grad=True)]})
    with pytest.raises(
        ValueError, match="the state holds state, param_groups; give the state of a MuonAdamW"
    ):
        optimizer.load_state_dict(optimizer.adamw.state_dict())
    with pytest.raises(ValueError, match="kind is 'Muon'; choose adamw or muon"):
        make_optimizer(model, "Muon", lr=1e-2, weight_decay=0.0, betas=(0.9, 0.999))
    model.blocks.requires_grad_(False)
    model.chain.requires_grad_(False)
    with pytest.raises(ValueError, match="no matrix inside the model requires a gradient"):
        MuonAdamW(model, lr=1e-2)


def test_a_copy_steps_itself_after_a_scheduler_was_attached(make_model) -> None:
    model = make_model()
    optimizer = MuonAdamW(model, lr=0.1, weight_decay=0.0)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0)
    copied, its_own = copy.deepcopy((model, optimizer))
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in [*model.parameters(), *copied.parameters()]:
        parameter.grad = torch.ones_like(parameter)
    its_own.step()
    assert all(map(torch.equal, before, model.parameters()))
    assert not any(map(torch.equal, before, copied.parameters()))
    pickle.dumps(optimizer)


def test_a_state_that_is_refused_changes_nothing(model):
    optimizer = MuonAdamW(model, lr=1e-2)
    optimizer.step()
    before, other = copy.deepcopy(optimizer.state_dict()), copy.deepcopy(optimizer.state_dict())
    for moments in other["adamw"]["state"].values():
        moments["exp_avg"].zero_()
    other["muon"]["param_groups"] *= 2
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict(other)
    for number, moments in optimizer.state_dict()["adamw"]["state"].items():
        assert torch.equal(moments["exp_avg"], before["adamw"]["state"][number]["exp_avg"])
    kept = copy.deepcopy(model.state_dict())
    for group in optimizer.param_groups:  # still those it steps by
        group["lr"] = 0.0
    optimizer.step()
    assert all(torch.equal(new, kept[name]) for name, new in model.state_dict().items())


def test_a_damaged_part_of_a_state_changes_nothing(model):
    optimizer = MuonAdamW(model, lr=0.01)
    state = optimizer.state_dict()
    state["adamw"]["param_groups"] = [group | {"lr": 123.0} for group in state["adamw"]["param_groups"]]
    with pytest.raises(KeyError):
        optimizer.load_state_dict(state | {"muon": {}})
    assert {group["lr"] for group in optimizer.param_groups} == {0.01}
