"""The agent in the real game, next to the random agent under the same protocol."""

from wm.files import write_json
from wm.measure.evaluation import evaluate_games
from wm.sections import PARTS
from wm.stage import Context, Made, Stage


def run(context: Context) -> Made:
    """Play whole episodes of every game with the agent and with the random agent."""
    result = evaluate_games(context, seed=context.seed("evaluate") % 2**31, remembered=context.remembered)
    write_json(context.layout.evaluation, result)
    return Made([context.layout.evaluation], result)


STAGE = Stage(
    "evaluate",
    PARTS,
    lambda config: [config.evaluate, config.collect.protocol],
    run,
    size="evaluate.num_envs",
)
