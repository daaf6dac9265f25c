from weakref import ref

import pytest
import torch
from token_worldmodel import WorldModelConfig, visibility
from token_worldmodel.masks import attention_plan

# Rows see columns. Two steps of L0, L1, L2 and the action (a); the second step in capitals.
HIERARCHICAL_NONE = """
     0 1 2 a  A B C D
  0  x . . .  . . . .
  1  x x . .  . . . .
  2  x x x .  . . . .
  a  x x x x  . . . .
  A  x . . x  x . . .
  B  x . . x  x x . .
  C  x . . x  x x x .
  D  x . . x  x x x x
"""
# L0 (A) and the action (D) of the second step now see the first's L1 and L2; its own L1, L2 still do not.
HIERARCHICAL_PAST = HIERARCHICAL_NONE.replace("A  x . . x", "A  x x x x").replace("D  x . . x", "D  x x x x")

# "last" is the same over two steps; in a third, L0 and the action see only the second's detail.
HIERARCHICAL_LAST_THIRD = """
     0 1 2 a  A B C D  0 1 2 a
  0  x . . x  x x x x  x . . .
  1  x . . x  x . . x  x x . .
  2  x . . x  x . . x  x x x .
  a  x . . x  x x x x  x x x x
"""


def parse(drawing: str) -> torch.Tensor:
    rows = drawing.strip().splitlines()[1:]
    return torch.tensor([[cell == "x" for cell in row.split()[1:]] for row in rows])


@pytest.mark.parametrize(("detail", "drawing"), [("none", HIERARCHICAL_NONE), ("past", HIERARCHICAL_PAST)])
def test_hierarchical_mask_is_as_drawn(detail: str, drawing: str) -> None:
    assert torch.equal(visibility(WorldModelConfig(detail=detail), 2), parse(drawing))


def test_last_detail_reaches_one_step_back() -> None:
    visible = visibility(WorldModelConfig(detail="last"), 3)
    assert torch.equal(visible[:8, :8], parse(HIERARCHICAL_PAST))
    assert torch.equal(visible[8:], parse(HIERARCHICAL_LAST_THIRD))


def test_causal_mask_is_a_triangle() -> None:
    expected = torch.ones(12, 12).tril().bool()
    assert torch.equal(visibility(WorldModelConfig(mask="causal"), 3), expected)


def test_with_one_level_there_is_no_detail_to_hide() -> None:
    config = WorldModelConfig(num_levels=1, loss_weights=(1.0,))
    assert torch.equal(visibility(config, 5), torch.ones(10, 10).tril().bool())


@pytest.mark.parametrize(
    ("mask", "detail"),
    [("hierarchical", "none"), ("hierarchical", "last"), ("hierarchical", "past"), ("causal", "none")],
)
@pytest.mark.parametrize("steps", [1, 8, 19, 33])
def test_blocks_are_the_mask_and_nothing_unseen(mask: str, detail: str, steps: int) -> None:
    config = WorldModelConfig(mask=mask, detail=detail)
    plan = attention_plan(config, steps, torch.device("cpu"))
    positions = torch.arange(steps * 4).unflatten(0, (steps, 4))
    lasting, passing = positions[:, plan.lasting].flatten(), positions[:, plan.passing].flatten()
    rebuilt = torch.zeros(steps * 4, steps * 4, dtype=torch.bool)
    for block in plan.blocks:
        keys = torch.cat([lasting[block.lasting], passing[block.passing]])
        seen = block.bias == 0
        assert seen.any(0).all()
        rebuilt[block.queries, keys] = seen
    assert torch.equal(rebuilt, visibility(config, steps))


def test_windows_of_many_lengths_leave_few_plans_behind() -> None:
    """On a CPU; they grow with the square of a window."""
    config, cpu = WorldModelConfig(num_codes=4, dropout=0.125), torch.device("cpu")
    first = ref(attention_plan(config, 1, cpu).visible)
    assert attention_plan(config, 1, cpu).visible is first()
    for steps in range(2, 60):
        attention_plan(config, steps, cpu)
    assert first() is None
