"""The command that measures: evaluate."""

from contextlib import ExitStack
from math import isfinite, isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer

from denoisecli.cli import console, displays
from denoisecli.cli.options import Overwrite, load_tensorflow
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.system.atomic_files import refuse_existing

_COLUMNS = 6  # metrics in a table, so that it fits into a line


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="A model folder or a bundled name.", show_default=False),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Argument(help="A dataset, whose test set is taken.", show_default=False),
    ] = None,
    clean: Annotated[
        Path | None, typer.Option(help="Folder of clean recordings.", show_default=False)
    ] = None,
    noisy: Annotated[
        Path | None, typer.Option(help="Folder of noisy ones, of the same names.")
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", help="A further model; repeatable.")
    ] = None,
    estimate: Annotated[
        list[Path] | None, typer.Option(help="A folder of files already cleaned; repeatable.")
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            help="noisereduce, wiener, or NAME=COMMAND with {input} and {output}; repeatable."
        ),
    ] = None,
    compare_with: Annotated[
        str, typer.Option(help="Name of what differences are taken to.")
    ] = "input",
    metrics: Annotated[
        str, typer.Option(help="Names, with commas between them; all for every one.")
    ] = "pesq_wb,stoi,estoi,si_sdr",
    jobs: Annotated[int, typer.Option(min=1, help="Processes that score.")] = 2,
    keep: Annotated[
        Path | None, typer.Option(help="Leave the cleaned files in this folder.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write a page with pictures and sound (.html).")
    ] = None,
    report_files: Annotated[
        int, typer.Option(min=0, help="Recordings with pictures and sound in it.")
    ] = 9,
    csv: Annotated[Path | None, typer.Option(help="Write all scores as a table.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Measure what models and other denoisers do to recordings whose clean sound is known.

    Examples: `denoise evaluate speech data/ --baseline wiener --report report.html` takes the test
    set of a dataset; `denoise evaluate runs/mine --clean valid/clean --noisy valid/noisy` takes
    pairs of files of the same name.
    """
    from denoisecli.evaluation import pairs as testsets
    from denoisecli.evaluation.evaluate import evaluate as run_evaluation
    from denoisecli.evaluation.metrics import METRICS
    from denoisecli.evaluation.report import check_report, write_report

    if (dataset is None) == (clean is None and noisy is None) or (clean is None) != (noisy is None):
        raise UsageError(
            "evaluate wants a model and a dataset (denoise evaluate speech data/), or --clean and "
            "--noisy"
        )
    if csv is not None:
        refuse_existing(csv, overwrite=overwrite)
    if report is not None:
        check_report(report, overwrite=overwrite)
    wanted = [*([model] if model else []), *(models or [])]
    chosen = _estimators(wanted, estimate or [], baseline or [])
    names = list(METRICS) if metrics == "all" else [name.strip() for name in metrics.split(",")]
    with ExitStack() as stack:
        if dataset is not None:
            load_tensorflow("evaluating on a dataset")
            pairs = stack.enter_context(testsets.stored_pairs(dataset))
        else:
            assert clean is not None and noisy is not None
            pairs = testsets.folder_pairs(clean, noisy)
        if report is not None and keep is None:
            keep = Path(stack.enter_context(TemporaryDirectory(prefix="denoise-")))
        with displays.progress("evaluating", unit="files") as tell:
            result = run_evaluation(
                pairs,
                chosen,
                metrics=names,
                baseline=compare_with,
                jobs=jobs,
                keep=keep,
                on_progress=tell,
            )
        if csv is not None:
            result.to_csv(csv, overwrite=overwrite)
        if report is not None:
            write_report(result, pairs, report, files=report_files, overwrite=overwrite)
            console.info(f"wrote {report}: {report.stat().st_size / 2**20:.1f} MiB")
    if as_json:
        console.print_json(result.to_dict())
    else:
        _print_evaluation(result)
    for score in result.errors:
        console.warn(f"{score.estimator}: {score.file}: {score.error}")
    if result.errors:
        raise DenoiseError(f"{len(result.errors)} files could not be cleaned or scored")


def _estimators(models: list[str], folders: list[Path], baselines: list[str]) -> dict[str, Any]:
    """By name, models first; the model speech where there would be nothing else."""
    from denoisecli.evaluation import estimators as kinds

    chosen: list[tuple[str, kinds.Estimator]] = []
    for one in models or ([] if folders or baselines else ["speech"]):
        path = Path(one).resolve()  # a run's folder holds its model's, called "model"
        chosen.append(((path.parent if path.name == "model" else path).name, kinds.Model(one)))
    chosen += [(folder.resolve().name, kinds.Folder(folder)) for folder in folders]
    for text in baselines:
        name, equals, command = text.partition("=")
        if equals:
            chosen.append((name, kinds.Command(command)))
        elif name in kinds.BASELINES:
            chosen.append((name, kinds.BASELINES[name]()))
        else:
            raise UsageError(
                f"--baseline wants NAME=COMMAND or one of {', '.join(kinds.BASELINES)}; "
                f"found {text!r}"
            )
    names = [name for name, _ in chosen]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two of what is to be evaluated are called {name!r}; rename one")
    return dict(chosen)


def _print_evaluation(result: Any) -> None:
    """Means with 95 % intervals, by SNR and by noise, differences, and what was made worse."""
    from denoisecli.evaluation.metrics import METRICS
    from denoisecli.evaluation.scores import INPUT, WORSE_DB, WORST

    def cell(interval: Any, metric: str, sign: str = "") -> str:
        digits = METRICS[metric].decimals
        text = "-" if isnan(interval.mean) else f"{interval.mean:{sign}.{digits}f}"
        if isfinite(interval.low):
            text += f" ±{(interval.high - interval.low) / 2:.{digits}f}"
        return text + (f" ({interval.failed} failed)" if interval.failed else "")

    def print_means(heading: list[str], rows: list[tuple[list[str], Any]]) -> None:
        for start in range(0, len(result.metrics), _COLUMNS):
            names = result.metrics[start : start + _COLUMNS]
            columns = [*heading, *(METRICS[name].label for name in names)]
            texts = [[*head, *(value(name) for name in names)] for head, value in rows]
            console.print_table(columns, texts, texts=len(heading))

    def means(estimator: str, files: Any = None) -> Any:
        return lambda name: cell(result.mean(estimator, name, files), name)

    def gains(estimator: str) -> Any:
        return lambda name: cell(result.gain(estimator, name), name, "+")

    print_means([""], [([name], means(name)) for name in result.costs])
    for kind, groups in (("input SNR", result.groups("snr")), ("noise", result.groups("noise"))):
        if len(groups) > 1:
            rows = [
                ([f"{group}, {len(files)} files", name], means(name, files))
                for group, files in groups.items()
                for name in result.costs
            ]
            print_means([kind, ""], rows)
    differences = [([name], gains(name)) for name in result.compared]
    print_means([f"difference to {result.baseline}"], differences)
    console.print_table(
        ["", "times real time", "load s", "MiB", "delay ms"],
        [
            [
                name,
                _text(1 / cost.real_time_factor, ".0f"),
                _text(cost.load_seconds, ".1f"),
                _text(cost.peak_memory_mb, ".0f"),
                _text(1000 * cost.delay_seconds, ".0f"),
            ]
            for name, cost in result.costs.items()
            if name != INPUT
        ],
    )
    for estimator in result.compared:
        if "si_sdr" not in result.metrics:
            continue
        worst = list(result.gains(estimator, "si_sdr").items())[:WORST]
        listed = ", ".join(f"{file} {gain:+.1f}" for file, gain in worst)
        console.result(
            f"{estimator}: {len(result.worsened(estimator))} files made worse by more than "
            f"{WORSE_DB} dB SI-SDR; least gained (dB): {listed}"
        )


def _text(value: float, form: str) -> str:
    return f"{value:{form}}" if isfinite(value) else "-"
