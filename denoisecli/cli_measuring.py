"""The commands that measure: evaluate, models."""

from math import isnan
from pathlib import Path
from typing import Annotated, Any

import typer

from denoisecli import console
from denoisecli.cli_options import Overwrite
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.files import refuse_existing


def evaluate(
    clean: Annotated[Path, typer.Option(help="Folder of clean recordings.", show_default=False)],
    noisy: Annotated[Path, typer.Option(help="Folder of noisy ones.", show_default=False)],
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model folder or a bundled name; repeatable. By default speech."),
    ] = None,
    estimate: Annotated[
        list[Path] | None, typer.Option(help="A folder of cleaned files.", show_default=False)
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="NAME=COMMAND with {input} and {output}.", show_default=False),
    ] = None,
    spectral_gating: Annotated[
        bool, typer.Option("--spectral-gating", help="Compare with noisereduce.")
    ] = False,
    metrics: Annotated[
        str, typer.Option(help="Names, with commas between them; all for every one.")
    ] = "pesq_wb,stoi,estoi,si_sdr",
    jobs: Annotated[int, typer.Option(min=1, help="Processes that score.")] = 2,
    keep: Annotated[
        Path | None, typer.Option(help="Leave the cleaned files here.", show_default=False)
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Write all scores here.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all scores as JSON.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Measure what models and other denoisers do to recordings whose clean sound is known.

    Example: `denoise evaluate --clean valid/clean --noisy valid/noisy --model runs/speech`
    """
    from denoisecli import estimators as kinds
    from denoisecli.evaluate import evaluate as run_evaluation
    from denoisecli.evaluate import pairs
    from denoisecli.metrics import METRICS

    if csv is not None:
        refuse_existing(csv, overwrite=overwrite)
    chosen: dict[str, kinds.Estimator] = {}
    for folder in estimate or []:
        chosen[folder.name] = kinds.Folder(folder)
    for text in baseline or []:
        name, equals, command = text.partition("=")
        if not equals:
            raise UsageError(f"--baseline wants NAME=COMMAND, found {text!r}")
        chosen[name] = kinds.Command(command)
    if spectral_gating:
        chosen["noisereduce"] = kinds.SpectralGating()
    for one in model or ([] if chosen else ["speech"]):
        chosen[Path(one).name] = kinds.Model(one)
    names = list(METRICS) if metrics == "all" else [name.strip() for name in metrics.split(",")]
    with console.progress("evaluating", unit="files") as tell:
        result = run_evaluation(
            pairs(clean, noisy), chosen, metrics=names, jobs=jobs, keep=keep, progress=tell
        )
    if csv is not None:
        result.to_csv(csv, overwrite=overwrite)
    if as_json:
        console.print_json(result.to_dict())
    else:
        _print_evaluation(result)
    for score in result.errors:
        console.warn(f"{score.estimator}: {score.file}: {score.error}")
    if result.errors:
        raise DenoiseError(f"{len(result.errors)} files could not be cleaned or scored")


def _print_evaluation(result: Any) -> None:
    """Means with 95 % intervals, by input SNR, and what was made worse."""
    from denoisecli.metrics import METRICS
    from denoisecli.scores import WORSE_DB, WORST

    labels = [METRICS[name].label for name in result.metrics]

    def cells(estimator: str, files: Any = None) -> list[str]:
        texts = []
        for name in result.metrics:
            interval = result.mean(estimator, name, files)
            digits = METRICS[name].decimals
            text = f"{interval.mean:.{digits}f} ±{(interval.high - interval.low) / 2:.{digits}f}"
            texts.append(text + (f" ({interval.failed} failed)" if interval.failed else ""))
        return texts

    rows = [
        [
            estimator,
            *cells(estimator),
            "-" if isnan(cost.real_time_factor) else f"{1 / cost.real_time_factor:.0f}x",
            "-" if isnan(cost.load_seconds) else f"{cost.load_seconds:.1f}",
        ]
        for estimator, cost in result.costs.items()
    ]
    console.print_table(["", *labels, "real time", "load s"], rows)
    groups = result.groups()
    if len(groups) > 1:
        rows = [
            [f"{group}, {len(files)} files", estimator, *cells(estimator, files)]
            for group, files in groups.items()
            for estimator in result.costs
        ]
        console.print_table(["input SNR", "", *labels], rows, texts=2)
    for estimator in list(result.costs)[1:]:
        if "si_sdr" not in result.metrics:
            continue
        worst = list(result.gains(estimator, "si_sdr").items())[:WORST]
        listed = ", ".join(f"{file} {gain:+.1f}" for file, gain in worst)
        console.result(
            f"{estimator}: {len(result.worsened(estimator))} files made worse by more than "
            f"{WORSE_DB} dB SI-SDR; least gained (dB): {listed}"
        )


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the bundled models with their figures.

    Example: `denoise models`
    """
    from denoisecli.models import find_model, model_names, read_metrics
    from denoisecli.spec import load_spec

    found = []
    for name in model_names():
        folder = find_model(name)
        spec, metrics = load_spec(folder), read_metrics(folder)
        size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
        found.append(
            {
                "name": name,
                "description": spec.description,
                "sample_rate": spec.audio.sample_rate,
                "causal": spec.causal,
                "parameters": metrics["parameters"],
                "hours_of_audio_trained": metrics["audio_hours"],
                "test_si_sdr_improvement_db": metrics["test"]["si_sdr_improvement"],
                "mib": size,
                "folder": str(folder),
            }
        )
    if as_json:
        console.print_json(found)
        return
    rows = [
        [
            str(one["name"]),
            f"{one['sample_rate']} Hz",
            f"{one['parameters']:,}",
            f"{one['test_si_sdr_improvement_db']:.1f} dB",
            f"{one['mib']:.1f} MiB",
        ]
        for one in found
    ]
    console.print_table(["model", "rate", "parameters", "SI-SDR gain", "size"], rows)
