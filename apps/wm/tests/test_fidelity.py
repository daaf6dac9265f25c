"""What is compared with what, step by step: a dream's numbers and the game's, worked out by hand."""

from types import SimpleNamespace

import pytest
import torch
from latent_ac import PredictorConfig, RewardPredictor
from wm.measure.fidelity import Windows, _Fidelity

CONTEXT, HORIZON = 2, 3


@pytest.fixture
def fidelity():
    """Of a run that dreams three steps after two real ones."""
    made = object.__new__(_Fidelity)
    made.context, made.horizon = CONTEXT, HORIZON
    made.quantizer = SimpleNamespace(
        codebooks=[torch.zeros(99, 1)], level_embeddings=lambda tokens: tokens.float()[..., None]
    )
    return made


def windows(rewards, continues, tokens=None):
    """One window of five steps."""
    rows = torch.arange(CONTEXT + HORIZON)[None]
    tokens = torch.zeros(1, CONTEXT + HORIZON, 1).long() if tokens is None else tokens
    columns = (torch.tensor([values], dtype=torch.float32) for values in (rewards, continues))
    return Windows(tokens, 10 + rows, *columns, rows)


@pytest.mark.parametrize("head", ["two_hot", "sign"])
def test_what_an_action_in_the_dream_brings_is_held_against_what_it_brought(fidelity, head):
    """The first dreamed action is that of the last real step; copying says what the step before brought."""
    real = windows(rewards=[4, 0, -3, 2, 9], continues=[1, 1, 0, 1, 1])

    class Foreteller:
        reward = RewardPredictor(PredictorConfig(feature_dim=1, reward_head=head))

        def predict(self, features, actions):
            assert actions.tolist() == [[11], [12], [13]]
            return torch.tensor([[1.0], [-1.0], [0.0]]), torch.tensor([[1.0], [0.25], [1.0]])

    found = fidelity._values(Foreteller(), real, torch.zeros(1, HORIZON + 1, 1).long())
    came, before = ([0, -3, 2], 4) if head == "two_hot" else ([0, -1, 1], 1)
    said = [1, -1, 0]
    reward = found["reward"]
    assert reward["error"] == [abs(a - b) for a, b in zip(said, came, strict=True)]
    assert reward["copy_error"] == [abs(before - each) for each in came]
    assert reward["constant_error"] == [abs(each) for each in came]
    assert reward["real_mean"] == came
    assert reward["dreamed_mean"] == said
    goes_on = found["continue"]
    assert goes_on["error"] == [0, 0.25, 0]
    assert goes_on["copy_error"] == goes_on["constant_error"] == [0, 1, 0]
    for event in found["foreseen"].values():  # one of each came, and one of each was dreamed
        assert event == {"happened": 1, "recall": 1.0, "dreamed": 1.0, "precision": 1.0}


def test_a_state_is_read_from_the_dream_the_copied_step_and_real_tokens(fidelity):
    """The true state is the row's number; the dream is ahead by 2, the codes of real play read 5 too much."""
    state = torch.arange(5.0)[:, None]
    in_play = torch.tensor([1, 1, 1, 0, 1]).bool()[:, None]
    play = SimpleNamespace(state=SimpleNamespace(names=["ball"], values=state, in_play=in_play))
    real = windows([0] * 5, [1] * 5, tokens=(torch.arange(5) + 5)[None, :, None])
    dreamed = torch.tensor([6, 4, 5, 6])[None, :, None]
    found = fidelity._state(SimpleNamespace(read=lambda codes: codes), play, real, dreamed)["ball"]
    assert found["count"] == [1, 0, 1]  # out of play at row 3
    for name, expected in (("error", [2, 2]), ("copy_error", [4, 2]), ("read_error", [5, 5])):
        assert [found[name][0], found[name][2]] == expected
        assert found[name][1] != found[name][1]  # NaN
