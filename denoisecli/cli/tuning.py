"""The command that searches: tune."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from denoisecli.cli import console, displays
from denoisecli.cli.options import load_tensorflow
from denoisecli.cli.training import Device


class Method(StrEnum):
    """How values are chosen."""

    bayesian = "bayesian"
    hyperband = "hyperband"
    random = "random"


def tune(
    spec: Annotated[
        str,
        typer.Argument(
            help="A spec file with a `search` section, or the name of a bundled one.",
            show_default=False,
        ),
    ],
    data: Annotated[Path, typer.Option(help="Folder made by build-dataset.")] = Path("data"),
    run: Annotated[
        Path | None, typer.Option(help="Folder of the search; runs/NAME-tune.", show_default=False)
    ] = None,
    method: Annotated[Method, typer.Option(help="How values are chosen.")] = Method.bayesian,
    trials: Annotated[
        int, typer.Option(min=1, help="How many to train; infeasible ones do not count.")
    ] = 20,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Of a trial, instead of the spec's.", show_default=False),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="For the whole search.", show_default=False)
    ] = None,
    device: Annotated[
        Device, typer.Option(help="Where to train; auto: on all GPUs, if there are any.")
    ] = Device.auto,
    chief: Annotated[
        str | None,
        typer.Option(help="Only give out trials to workers, at HOST:PORT.", show_default=False),
    ] = None,
    worker: Annotated[
        str | None,
        typer.Option(help="Run trials of the chief at HOST:PORT.", show_default=False),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trials as JSON.")] = False,
) -> None:
    """Search for better values of what a spec's `search` section names.

    Writes best.json, which `denoise train` takes, trials.csv and trials.png. The same command
    goes on after a stop.

    Example: `denoise tune tiny --trials 20 --epochs 2`, then `denoise train
    runs/tiny-tune/best.json`
    """
    from denoisecli.models.catalogue import load_spec
    from denoisecli.tuning.trials import COLUMNS, rank, short_names, table_row

    loaded = load_spec(spec)  # before TensorFlow: a misspelt key is reported at once
    folder = run or Path("runs") / f"{loaded.name}-tune"
    load_tensorflow("tuning")
    from denoisecli.tuning.tune import BEST, PICTURE, TABLE
    from denoisecli.tuning.tune import tune as search

    with displays.SearchDisplay() as display:
        results = search(
            loaded,
            data,
            folder,
            display,
            method=method.value,
            trials=trials,
            epochs=epochs,
            minutes=minutes,
            fresh=fresh,
            device=device.value,
            chief=chief,
            worker=worker,
        )
    if not results or loaded.search is None:  # a worker has none
        return
    ranked = rank(results, loaded.search)
    if as_json:
        console.print_json([asdict(result) for result in results])
    else:
        rest = [result for result in results if result.objective is None]
        rows = [table_row(result) for result in ranked + rest]
        console.print_table([*COLUMNS, *short_names(list(loaded.search.space))], rows, texts=2)
    best = ranked[0]
    own = next((f"{r.objective:.4g}" for r in ranked if r.is_spec), None)
    console.info(
        f"wrote {folder / BEST}, {TABLE} and {PICTURE}: of {len(results)} trials {best.name} has "
        f"the best {loaded.search.objective}, {best.objective:.4g}"
        + (f"; the spec as it is has {own}" if own else "")
    )
