"""`wm eval`: play the real game, or measure the world model."""

from typing import Annotated, Literal

import typer

from wm.cli.options import DeviceOption, JsonOption, RoundOption, RunArgument
from wm.console import make_console


def evaluate(
    context: typer.Context,
    run: RunArgument,
    stage: Annotated[
        Literal["game", "worldmodel"],
        typer.Option(help="game: play it; worldmodel: predictions on validation episodes."),
    ] = "game",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes per game.")] = 100,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            help="Temperature of action sampling; 0 is greedy. Default: the run's.",
            show_default=False,
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Share of actions replaced by uniformly random ones. Default: the run's.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed for the environments and the policy.")] = 1000,
    max_frames: Annotated[
        int,
        typer.Option(
            min=100, help="Emulated frames after which an episode is cut off, regardless of the run's limit."
        ),
    ] = 108_000,
    video: Annotated[
        bool,
        typer.Option(
            "--video", help="Film the best and the median episode, each next to its dream: RUN/videos."
        ),
    ] = False,
    index: RoundOption = None,
    json_file: JsonOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Play whole episodes of the real game with a run's agent, and compare with random and published scores.

    With --stage worldmodel: check the world model and score its predictions on the validation episodes
    against two baselines, copying the last token and always predicting the commonest code.
    """
    from wm.measure.evaluation import evaluate_run
    from wm.measure.model_evaluation import evaluate_worldmodel
    from wm.opening import open_to_read

    if stage == "worldmodel":
        _only_of_the_game(context)
    opened = open_to_read(run, make_console(), device_name=device, index=index)
    if stage == "worldmodel":
        evaluate_worldmodel(opened, json_file=json_file)
        return
    play = opened.config.evaluate.changed(
        episodes=episodes, temperature=temperature, epsilon=epsilon, max_frames=max_frames
    )
    evaluate_run(opened, play, seed=seed, json_file=json_file, video=video)


def _only_of_the_game(context: typer.Context) -> None:
    """Refuse options about play, which will not take place: all but those that both measurements take."""
    of_both = {"run", "stage", "index", "json_file", "device"}
    for name in (name for name in context.params if name not in of_both):
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} is for play, and --stage worldmodel plays nothing; leave it out")
