"""One round's practice, repeated: what a setting of dreams or learning is worth, without whole runs.

    uv run python apps/wm/benchmarks/practice.py RUN --round 6 --repeats 3 --try dream.temperature=1.5

The agent of the round before practises in the round's own world model with the run's settings, and again
with each `--try` (settings of dreams or learning, separated by spaces), each time with `--repeats` different
seeds of the dreams; networks, predictors, codes and play are the run's. Each agent, and the one they all
start from, plays the same whole games under the conditions of evaluation. Prints mean return and standard
error of each agent, and of all with the same settings. Writes nothing to the run. The spread between
repeats of one setting is what a setting has to beat; two whole runs show less (docs/log.md).
"""

import argparse
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from latent_ac import Agent, load_agent, save_agent
from rich.console import Console
from wm.artifacts import frozen_quantizer
from wm.config import RunConfig, build_config
from wm.console import NumbersTable
from wm.device import pick_device
from wm.measure.evaluation import play_whole_games
from wm.opened import RunAtHand
from wm.policy import policy_of
from wm.reporter import Reporter
from wm.rounds import layout_of_round, open_run, round_suffix
from wm.run import Layout
from wm.settings import parse_override, unstructure
from wm.stage import Context
from wm.stages.agent import learn_to_play
from wm.windows import load_all_tokens

PRACTICE = (
    "agent.",
    "dream.",
    "evaluate.",
    "train.agent.",
    "rounds.agent_steps",
    "rounds.anneal",
    "rounds.finish",
    "rounds.newest_share",
    "windows.game_weights",
)
"""What `--try` can change: the rest is in files of the run, or of no effect on practice."""


@dataclass(frozen=True)
class Practised(Layout):
    """The files of a round, except its agent's."""

    file: Path = Path()

    @property
    def agent(self) -> Path:
        """Weights of the benchmark's own agent."""
        return self.file


@dataclass(frozen=True)
class Repeat(Context):
    """A round's practice with other dreams, whose checkpoints go elsewhere."""

    number: int = 0
    scratch: Path = Path()

    @property
    def first_batch(self) -> int:
        """Number of the first batch of contexts and dreams: far from the run's own and other repeats'."""
        return super().first_batch + ((self.number + 1) << 24)

    def checkpoint(self, part: str = "") -> Path:
        """A path at which no checkpoint is found."""
        return self.scratch / f"{part}.pt"


def main() -> None:
    """Parse, practise, play, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--round", type=int, required=True, help="1 or later, to begin with the agent before")
    parser.add_argument("--try", dest="tries", action="append", default=[], metavar="SETTINGS")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    config, _ = open_run(asked.run)
    if not 1 <= asked.round < config.rounds.count:
        parser.error(f"--round is {asked.round}; give 1 to {config.rounds.count - 1}")
    for setting in " ".join(asked.tries).split():
        if not setting.startswith(PRACTICE) or setting.startswith("train.agent.steps="):
            parser.error(f"--try {setting} does not change a round's practice; give {', '.join(PRACTICE)}")
    console = Console()
    bench = Practice(asked.run, asked.round, asked.episodes, pick_device(asked.device), console)
    table = NumbersTable(f"round {asked.round}", "settings", "repeat", "mean return", "standard error")
    table.add_row("previous round's agent", "", *bench.play(config, bench.agent(asked.round - 1)))
    for settings in ["", *asked.tries]:
        changed = build_config(unstructure(config), *map(parse_override, settings.split()))
        means = []
        for number in range(asked.repeats):
            shown = bench.play(changed, bench.practise(changed, number))
            means.append(float(shown[0]))
            table.add_row(settings or "unchanged", str(number), *shown)
        spread = statistics.stdev(means) / len(means) ** 0.5 if len(means) > 1 else float("nan")
        table.add_row(settings or "unchanged", "all", f"{statistics.fmean(means):.2f}", f"{spread:.2f}")
    console.print(table)


class Practice:
    """One round of a run."""

    def __init__(self, root: Path, index: int, episodes: int, device: torch.device, console: Console) -> None:
        self.root, self.index, self.episodes, self.device = root, index, episodes, device
        self.reporter = Reporter(console)

    def agent(self, index: int) -> Agent:
        """The agent of a round, with the predictors of the round that is repeated."""
        config, _ = open_run(self.root)
        agent, judge = (
            load_agent(layout_of_round(self.root, config, each).agent) for each in (index, self.index)
        )
        agent.reward.load_state_dict(judge.reward.state_dict())
        agent.continue_.load_state_dict(judge.continue_.state_dict())
        return agent.to(self.device)

    def practise(self, config: RunConfig, number: int) -> Agent:
        """The agent of the round before, after the round's practice in the dreams of repeat ``number``."""
        layout = layout_of_round(self.root, config, self.index)
        with tempfile.TemporaryDirectory() as scratch:
            context = Repeat(
                config.in_round(self.index),
                layout,
                self.device,
                self.reporter,
                round=self.index,
                stage=f"agent{round_suffix(self.index, config.rounds.count)}",
                number=number,
                scratch=Path(scratch),
            )
            agent = self.agent(self.index - 1)
            quantizer = frozen_quantizer(layout, self.device)
            learn_to_play(context, agent, quantizer, load_all_tokens(context))
        return agent.eval()

    def play(self, config: RunConfig, agent: Agent) -> tuple[str, str]:
        """Mean return of whole games and its standard error; with several games, over all their episodes."""
        returns = []
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "agent.safetensors"
            save_agent(file, agent)
            layout = layout_of_round(self.root, config, self.index)
            mine = Practised(layout.root, layout.earlier_round, file)
            run = RunAtHand(config, mine, self.device, self.reporter)
            for game in config.games:
                played = play_whole_games(
                    run,
                    game,
                    policy_of(mine, game, config.dream, config.evaluate, seed=0, device=self.device),
                    self.episodes,
                    task=f"play {game}",
                    seed=0,
                    max_frames=config.evaluate.max_frames,
                )
                returns += played["returns"]
        error = statistics.stdev(returns) / len(returns) ** 0.5 if len(returns) > 1 else float("nan")
        return f"{statistics.fmean(returns):.2f}", f"{error:.2f}"


if __name__ == "__main__":
    main()
