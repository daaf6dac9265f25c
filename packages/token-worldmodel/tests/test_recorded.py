"""A recorded dream is the dream itself; where nothing is recorded, the function runs."""

import pytest
import torch
from token_worldmodel import Recorded, WorldModel, WorldModelConfig, imagine, recorded


def test_on_a_cpu_the_function_runs():
    inputs = []

    def twice(x):
        inputs.append(x)
        return (2 * x,)

    recorded = Recorded(twice)
    given = [torch.tensor([1.0, k]) for k in range(3)]
    assert [recorded(x)[0].tolist() for x in given] == [[2, 0], [2, 2], [2, 4]]
    assert all(x is y for x, y in zip(given, inputs, strict=True))


def test_without_inputs_the_function_runs():
    recorded = Recorded(lambda: (torch.ones(2),))
    assert [recorded()[0].tolist() for _ in range(3)] == [[1, 1]] * 3


class Recording:
    """Stands for a graph, which repeats what ran as it ran: in the precision that it was recorded in."""

    def __init__(self, function, inputs):
        self.function, self.inputs = function, tuple(x.clone() for x in inputs)
        self.narrow = torch.is_autocast_enabled("cpu")
        self.outputs, self.graph = self.ran(), self

    def ran(self):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.narrow):
            return self.function(*self.inputs)

    def replay(self):
        for held, new in zip(self.outputs, self.ran(), strict=True):
            held.copy_(new)


def test_each_precision_has_a_recording_of_its_own(monkeypatch):
    monkeypatch.setattr(recorded, "can_record", lambda device: True)
    monkeypatch.setattr(torch.cuda, "default_generators", {None: torch.Generator()})
    monkeypatch.setattr(Recorded, "_record", lambda self, inputs: Recording(self.function, inputs))
    weight = torch.linspace(0, 1, 9).reshape(3, 3)
    twice = Recorded(lambda x: (x @ weight,))
    kept = []
    for call, narrow in enumerate((True, True, True, False, False, False, True)):
        x = torch.rand(2, 3, generator=torch.Generator().manual_seed(call))
        with torch.autocast("cpu", torch.bfloat16, enabled=narrow):
            kept.append((twice(x)[0], x @ weight))
        assert kept[-1][0].dtype == (torch.bfloat16 if narrow else torch.float32)
    assert all(torch.equal(found, expected) for found, expected in kept)


def test_recorded_in_inference_mode_it_runs_outside_too(monkeypatch):
    """A recording's inputs are written to at every call, and tensors of inference mode only inside it."""
    monkeypatch.setattr(recorded, "can_record", lambda device: True)
    monkeypatch.setattr(torch.cuda, "default_generators", {None: torch.Generator()})
    monkeypatch.setattr(Recorded, "_record", lambda self, inputs: Recording(self.function, inputs))
    twice, x = Recorded(lambda x: (2 * x,)), torch.ones(2)
    with torch.inference_mode():
        found = [twice(x)[0], twice(x)[0]]
    found.append(twice(x + 1)[0])
    assert [each.tolist() for each in found] == [[2, 2], [2, 2], [4, 4]]


def test_what_draws_on_the_cpu_runs_and_draws_as_before(monkeypatch):
    def refuse(self, inputs):
        self.function(*inputs)  # it draws before it comes to what cannot be recorded
        raise RuntimeError("operation not permitted")

    monkeypatch.setattr(recorded, "can_record", lambda device: True)
    monkeypatch.setattr(torch.cuda, "default_generators", {None: torch.Generator()})
    monkeypatch.setattr(Recorded, "_record", refuse)
    dice = torch.Generator().manual_seed(3)
    noisy, x = Recorded(lambda x: (x + torch.rand(4, generator=dice),), dice), torch.zeros(4)
    first = noisy(x)[0]
    with pytest.warns(UserWarning, match="not recorded as a CUDA graph, so slower: operation not permitted"):
        second = noisy(x)[0]
    dice.manual_seed(3)
    for drawn in (first, second):
        assert torch.equal(drawn, torch.rand(4, generator=dice))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_a_recording_dreams_what_the_function_does(dtype):
    torch.manual_seed(0)
    model = WorldModel(WorldModelConfig(max_steps=12, dim=64, num_layers=2, num_heads=2, ffn_dim=128)).cuda()
    preference = torch.zeros(18, device="cuda")
    draw = torch.Generator("cuda")

    def policy(tokens, state):
        noise = torch.rand(len(tokens), 18, generator=draw, device="cuda")
        return (noise + preference + state[:, :18]).argmax(-1)

    def dream(tokens, actions):
        dream = imagine(model, tokens, actions, policy, 6, generator=draw, dtype=dtype)
        return dream.tokens, dream.actions, dream.states, dream.log_probs

    recorded = Recorded(dream, draw)
    kept = []
    for k in range(5):
        tokens = torch.randint(256, (32, 4, 3), device="cuda")
        actions = torch.randint(18, (32, 3), device="cuda")
        preference[k] += 1  # in place, as an optimiser does
        draw.manual_seed(k)
        expected = dream(tokens, actions)
        draw.manual_seed(k)
        found = recorded(tokens, actions)
        torch.testing.assert_close(found, expected)
        kept.append((expected, found))
    for expected, found in kept:  # what was given before is not overwritten
        assert torch.equal(expected[0], found[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_what_cannot_be_recorded_runs_and_draws_as_before():
    dice = torch.Generator("cuda")

    def looks(x):
        return (x * int(x.max()) + torch.rand(x.shape, generator=dice, device=x.device),)

    recorded, x = Recorded(looks, dice), torch.arange(4.0, device="cuda")
    recorded(x)
    dice.manual_seed(3)
    with pytest.warns(UserWarning, match="not recorded as a CUDA graph"):
        found = recorded(x)[0]
    dice.manual_seed(3)
    assert torch.equal(found, looks(x)[0])
    assert torch.rand(2, device="cuda").isfinite().all()  # the device's own generator is not left behind


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_what_is_recorded_is_the_inputs_device_whichever_is_current():
    recorded = Recorded(lambda x: (2 * x,))
    for k in range(4):
        assert recorded(torch.tensor([1.0, k], device="cuda:1"))[0].tolist() == [2, 2 * k]
    assert torch.cuda.current_device() == 0
