"""The command that searches the hyperparameters of a spec: tune."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from denoisecli.cli import console, displays
from denoisecli.cli.options import (
    Json,
    Losses,
    ModelClass,
    allow_code,
    host_and_port,
    load_keras,
)
from denoisecli.system.extras import require
from denoisecli.training.devices import Device
from denoisecli.tuning.method import Method

_search = partial(typer.Option, rich_help_panel="Search")
_machines = partial(typer.Option, rich_help_panel="Devices and machines")


def tune(
    spec: Annotated[
        str,
        typer.Argument(help="Spec file with a `search` section, or the name of a bundled spec."),
    ],
    data: Annotated[Path, typer.Option(help="Dataset made by build-dataset.")] = Path("data"),
    run: Annotated[
        Path | None, typer.Option(help="Folder of the search (default: runs/NAME-tune).")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete the search in the folder and start over.")
    ] = False,
    model_class: ModelClass = None,
    loss: Losses = None,
    as_json: Json = False,
    method: Annotated[Method, _search(help="Method that chooses the values.")] = Method.BAYESIAN,
    trials: Annotated[
        int, _search(min=1, help="Number of trials to train; infeasible ones do not count.")
    ] = 20,
    epochs: Annotated[
        int | None,
        _search(min=1, help="Number of epochs of each trial (default: that of the spec)."),
    ] = None,
    minutes: Annotated[
        float | None, _search(min=0, help="Time limit of the search in minutes, such as 90.")
    ] = None,
    device: Annotated[
        Device, _machines(help="Device to train on; auto takes all GPUs if there are any.")
    ] = Device.AUTO,
    chief: Annotated[
        str | None,
        _machines(
            parser=host_and_port,
            metavar="HOST:PORT",
            help="Address to listen on, to hand out trials to workers instead of training them.",
        ),
    ] = None,
    worker: Annotated[
        str | None,
        _machines(
            parser=host_and_port,
            metavar="HOST:PORT",
            help="Address of the chief that hands out the trials to train.",
        ),
    ] = None,
) -> None:
    """Search for better values of the fields that a spec's `search` section names.

    Writes trials.csv, trials.png and best.json, which is a spec for `denoise train`, to the folder
    of the search. The same command resumes an interrupted search.

    Example: `denoise tune tiny --trials 20 --epochs 2`, then `denoise train
    runs/tiny-tune/best.json`
    """
    from denoisecli.models.catalogue import load_spec
    from denoisecli.spec.search_space import with_values
    from denoisecli.tuning.trials import rank, trial_table

    require("tune", "keras_tuner", purpose="tuning")
    loaded = load_spec(spec)  # before TensorFlow, so that errors in the spec show at once
    if model_class is not None:
        changed = with_values(loaded, {"model": model_class})
        loaded = changed.model_copy(update={"search": loaded.search})
    load_keras("tuning")
    allow_code(model_class, loss)
    from denoisecli.tuning.tune import BEST, PICTURE, TABLE
    from denoisecli.tuning.tune import tune as run_search

    folder = run or Path("runs") / f"{loaded.name}-tune"
    with displays.SearchDisplay() as display:
        results = run_search(
            loaded,
            data,
            folder,
            display,
            method=method,
            trials=trials,
            epochs=epochs,
            minutes=minutes,
            fresh=fresh,
            device=device,
            chief=chief,
            worker=worker,
        )
    if loaded.search is None or not results:  # a worker has no results
        return
    ranked = rank(results, loaded.search)
    if as_json:
        console.print_json(results)
    else:
        others = [result for result in results if result.objective is None]
        console.print_table(*trial_table(ranked + others), texts=2)
    best = ranked[0]
    own = next((f"{r.objective:.4g}" for r in ranked if r.is_spec), None)
    console.info(
        f"wrote {folder / BEST}, {TABLE} and {PICTURE}: trial {best.name} of {len(results)} has "
        f"the best {loaded.search.objective}, {best.objective:.4g}"
        + (f"; the unchanged spec reaches {own}" if own else "")
    )
