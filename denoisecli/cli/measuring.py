"""The command that measures: evaluate."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from denoisecli.audio.files import probe
from denoisecli.cli import console, displays
from denoisecli.cli.options import Overwrite, refuse_given
from denoisecli.errors import DenoiseError, UsageError, join_names
from denoisecli.system.atomic_files import refuse_existing, temporary_folder

if TYPE_CHECKING:
    from denoisecli.evaluation.estimators import Estimator
    from denoisecli.evaluation.pairs import Pair
    from denoisecli.evaluation.recognition import Recognizer
    from denoisecli.evaluation.scores import Evaluation, Interval, Score

_METRICS = (
    "pesq_wb, pesq_nb, stoi, estoi, si_sdr, si_sdr_60hz, snr, segmental_snr, lsd, csig, cbak, covl"
)
_BLIND = "dnsmos_ovrl, dnsmos_sig, dnsmos_bak, noise_floor, speech_level, estimated_snr"
_DEFAULT = "pesq,stoi,estoi,si_sdr,si_sdr_60hz"
_pairs = partial(typer.Option, rich_help_panel="Pairs of files, instead of a dataset")
_real = partial(typer.Option, rich_help_panel="Real recordings, without clean references")
_speech = partial(typer.Option, rich_help_panel="Speech recognition")
_estimators = partial(typer.Option, rich_help_panel="Estimators")
_output = partial(typer.Option, rich_help_panel="Output")


ModelName = Annotated[str | None, typer.Argument(help="Model folder or name of a bundled model.")]
DatasetFolder = Annotated[
    Path | None, typer.Argument(help="Dataset whose test set to evaluate on.")
]
CleanFolder = Annotated[Path | None, _pairs(help="Folder of clean recordings.")]
NoisyFolder = Annotated[Path | None, _pairs(help="Folder of noisy recordings with the same names.")]
MatchPattern = Annotated[
    str | None,
    _pairs(
        metavar="REGEX",
        help=r"Regular expression with one group, such as 'fileid_(\d+)': recordings are "
        "matched if the group finds the same text in their names.",
    ),
]
PairList = Annotated[
    Path | None,
    _pairs(
        help="CSV file with the headings clean and noisy, and optionally name, noise and "
        "snr_db; paths are relative to its folder."
    ),
]
RecordingsFolder = Annotated[
    Path | None, _real(help="Folder of recordings to score without a reference.")
]
Models = Annotated[
    list[str] | None,
    _estimators(
        "--model", metavar="MODEL", help="Model folder or name of a bundled model; repeatable."
    ),
]
Estimates = Annotated[
    list[Path] | None,
    _estimators(metavar="FOLDER", help="Folder of already cleaned files; repeatable."),
]
Baselines = Annotated[
    list[str] | None,
    _estimators(
        metavar="NAME[=COMMAND]",
        help="noisereduce, wiener, or an external program as 'NAME=COMMAND {input} {output}'; "
        "repeatable.",
    ),
]
CompareWith = Annotated[str, _estimators(help="Name of the estimator to compare the others with.")]
MetricNames = Annotated[
    str | None,
    typer.Option(
        help=f"all, or metrics separated by commas: {_METRICS}; also without clean "
        f"recordings: {_BLIND}. pesq is wide band, or narrow band if the clean recordings are "
        "below 16 kHz; dnsmos is all three of its ratings (default: "
        f"{_DEFAULT}; with --recordings all)."
    ),
]
Align = Annotated[
    bool,
    typer.Option(
        "--align",
        help="Remove the delay of an output, such as that of a streaming denoiser, before scoring.",
    ),
]
AsrModel = Annotated[
    str | None,
    _speech(
        metavar="MODEL",
        help="Measure the word error rate with this Whisper model: a name such as base.en, "
        "which is downloaded, or the folder of a model.",
    ),
]
Transcripts = Annotated[
    Path | None,
    _speech(
        help="CSV file of transcripts with the headings name and text (default: NAME.txt "
        "beside the clean recording, or what is recognized in it)."
    ),
]
Language = Annotated[
    str | None, _speech(help="Language of the recordings, such as en (default: recognized).")
]
Jobs = Annotated[int, typer.Option(min=1, help="Number of scoring processes.")]
CleanedFolder = Annotated[
    Path | None, _output(help="Folder for the cleaned files (default: they are deleted).")
]
ReportPage = Annotated[
    Path | None,
    _output(help="HTML page for a report with figures, pictures and sound, such as report.html."),
]
ReportFiles = Annotated[
    int | None,
    _output(min=0, help="Number of recordings in the report with pictures and sound (default: 9)."),
]
ScoreFile = Annotated[
    Path | None,
    _output(
        help="CSV file for the scores of every file; an interrupted evaluation leaves them in "
        "NAME.partial.csv."
    ),
]
Json = Annotated[bool, _output("--json", help="Print all results as JSON.")]


def evaluate(
    model: ModelName = None,
    dataset: DatasetFolder = None,
    clean: CleanFolder = None,
    noisy: NoisyFolder = None,
    match: MatchPattern = None,
    pairs: PairList = None,
    recordings: RecordingsFolder = None,
    models: Models = None,
    estimate: Estimates = None,
    baseline: Baselines = None,
    compare_with: CompareWith = "input",
    metrics: MetricNames = None,
    align: Align = False,
    asr: AsrModel = None,
    transcripts: Transcripts = None,
    language: Language = None,
    jobs: Jobs = 2,
    keep: CleanedFolder = None,
    report: ReportPage = None,
    report_files: ReportFiles = None,
    csv: ScoreFile = None,
    as_json: Json = False,
    overwrite: Overwrite = False,
) -> None:
    """Score models and other denoisers on noisy recordings.

    The recordings are compared with clean ones or, with --recordings, scored without a reference.
    Scores are for whole recordings, whereas those that `train` prints are for short segments.

    Examples: the test set of a dataset,
    `denoise evaluate speech data/ --baseline wiener --report report.html`;
    pairs of files with the same name,
    `denoise evaluate runs/mine --clean valid/clean --noisy valid/noisy`;
    real recordings,
    `denoise evaluate --recordings takes/ --model speech --baseline noisereduce`;
    with the errors of a speech recognizer,
    `denoise evaluate speech --clean valid/clean --noisy valid/noisy --asr base.en`
    """
    from denoisecli.evaluation import formatting
    from denoisecli.evaluation.evaluate import evaluate as run_evaluation
    from denoisecli.evaluation.metrics import check_metrics
    from denoisecli.evaluation.recognition import read_transcripts
    from denoisecli.evaluation.report import check_report, write_report

    if csv is not None:
        refuse_existing(csv, overwrite=overwrite)
    if report is not None:
        check_report(report, overwrite=overwrite)
    if metrics is None:
        metrics = _DEFAULT if recordings is None else "all"
    blind = recordings is not None
    check_metrics(_metric_names(metrics, blind=blind, lowest_rate=None))
    if report is None:
        refuse_given({"--report-files": report_files}, "applies to --report only")
    recognizer = _make_recognizer(asr, transcripts, language)
    estimators = _make_estimators([*filter(None, [model]), *(models or [])], estimate, baseline)
    if report is not None and not estimators.keys() - {compare_with}:
        raise UsageError(f"a report needs an estimator to compare with {compare_with}")

    with (
        _open_pairs(dataset, clean, noisy, match, pairs, recordings) as found,
        temporary_folder() as temporary,
    ):
        if dataset is not None:
            for estimator in estimators.values():
                _warn_of_leak(estimator, dataset)
        names = _metric_names(metrics, blind=blind, lowest_rate=_lowest_rate(found))
        with (
            _partial_scores(csv, [*names, *(["wer"] if recognizer else [])]) as on_scores,
            displays.progress("evaluating", unit="files") as on_progress,
        ):
            result = run_evaluation(
                found,
                estimators,
                metrics=names,
                baseline=compare_with,
                jobs=jobs,
                keep=keep or temporary / "kept",
                align=align,
                recognizer=recognizer,
                transcripts=read_transcripts(found, transcripts) if recognizer else None,
                on_scores=on_scores,
                on_progress=on_progress,
            )
        if csv is not None:
            result.to_csv(csv, overwrite=overwrite)
        if report is not None:
            write_report(
                result,
                found,
                report,
                files=9 if report_files is None else report_files,
                overwrite=overwrite,
            )
            console.info(f"wrote {report}: {report.stat().st_size / 2**20:.1f} MiB")
    if as_json:
        console.print_json(result.to_dict())
    else:
        _print_result(result)
    for sentence in formatting.delays(result):
        console.warn(sentence)
    for score in result.errors:
        console.warn(f"{score.estimator}: {score.file}: {score.error}")
    if result.errors:
        raise DenoiseError(
            f"{len(result.errors)} of {len(result.scores)} results are missing, because files "
            "could not be read, cleaned or scored; see the warnings above"
        )


@contextmanager
def _open_pairs(
    dataset: Path | None,
    clean: Path | None,
    noisy: Path | None,
    match: str | None,
    listed: Path | None,
    recordings: Path | None,
) -> "Iterator[list[Pair]]":
    """Return the pairs of a dataset, a list or folders, as files that exist in the block."""
    from denoisecli.evaluation.pairs import (
        files_left_out,
        folder_pairs,
        listed_pairs,
        real_recordings,
        stored_pairs,
    )

    folders = clean is not None or noisy is not None
    if match is not None and not folders:
        raise UsageError("--match needs --clean and --noisy")
    if recordings is not None:
        if dataset is not None or listed is not None or folders:
            raise UsageError(
                "--recordings and a dataset, --clean, --noisy or --pairs cannot be combined"
            )
        pairs = real_recordings(recordings)
        if others := files_left_out(recordings):
            names = join_names([path.name for path in others])
            console.info(f"left out of {recordings}, since they are not audio: {names}")
        yield pairs
    elif dataset is None and listed is None and clean is not None and noisy is not None:
        yield folder_pairs(clean, noisy, match)
    elif dataset is None and listed is not None and not folders:
        yield listed_pairs(listed)
    elif dataset is not None and listed is None and not folders:
        with stored_pairs(dataset) as pairs:
            yield pairs
    else:
        raise UsageError(
            "evaluate needs a model and a dataset (denoise evaluate speech data/), or both --clean "
            "and --noisy, or --pairs, or --recordings"
        )


def _warn_of_leak(estimator: "Estimator", dataset: Path) -> None:
    """Warn if a model was trained on recordings of the test set, or if that is not known."""
    from denoisecli.datasets.manifest import load_manifest
    from denoisecli.evaluation.estimators import Model
    from denoisecli.evaluation.leaks import find_leak
    from denoisecli.models.catalogue import find_model, for_sample_rate
    from denoisecli.training.run_folder import dataset_folder

    if not isinstance(estimator, Model):
        return
    trained, tested = None, load_manifest(dataset)
    try:
        folder = for_sample_rate(find_model(estimator.model), tested.recipe.sample_rate)
        metrics = folder.read_metrics()
    except DenoiseError:  # it has no metrics.json; or no model, which the evaluation reports
        return
    with suppress(DenoiseError):  # the run or its dataset was moved
        data = dataset_folder(folder.path.resolve().parent)
        trained = None if data is None else load_manifest(data)
    leak = find_leak(metrics, tested, trained)
    name = folder.name
    if leak.clean or leak.noise:
        console.warn(
            f"{name} was trained on recordings with the names of {leak.clean} of "
            f"{leak.clean_total} clean and {leak.noise} of {leak.noise_total} noise recordings of "
            "this test set; if they are the same, its scores are too good"
        )
    elif not leak.known:
        console.info(
            f"{name} does not record its training recordings; this test set may contain some of "
            "them"
        )


def _metric_names(text: str, *, blind: bool = False, lowest_rate: int | None) -> list[str]:
    """Return the names of the metrics that an option lists.

    Args:
        text: The option: names separated by commas, or "all".
        blind: Whether "all" are those that need no clean recording.
        lowest_rate: Lowest sample rate of a clean recording in Hz, which decides what "pesq" is,
            and what of "all" is defined; None if it is not known yet.
    """
    from denoisecli.evaluation.metrics import BLIND_METRICS, METRICS, WIDE_BAND_RATE, pesq_for

    rate = WIDE_BAND_RATE if lowest_rate is None else lowest_rate
    if text.strip() == "all":
        known = BLIND_METRICS if blind else METRICS
        return [name for name, metric in known.items() if metric.lowest_rate <= rate]
    short = {
        "pesq": [pesq_for(rate)],
        "dnsmos": [name for name in BLIND_METRICS if name.startswith("dnsmos_")],
    }
    names = [short.get(name.strip(), [name.strip()]) for name in text.split(",")]
    return list(dict.fromkeys(name for several in names for name in several))


def _lowest_rate(pairs: "Sequence[Pair]") -> int | None:
    """Return the lowest sample rate of the references in Hz; None if none can be read."""
    rates = []
    for path in {pair.reference for pair in pairs}:
        with suppress(DenoiseError):  # the evaluation reports it
            rates.append(probe(path).sample_rate)
    return min(rates, default=None)


def _make_recognizer(
    model: str | None, transcripts: Path | None, language: str | None
) -> "Recognizer | None":
    from denoisecli.evaluation.recognition import Recognizer

    if model is None:
        if transcripts is not None or language is not None:
            raise UsageError("--transcripts and --language need --asr MODEL")
        return None
    recognizer = Recognizer(model, language)
    recognizer.check()
    return recognizer


@contextmanager
def _partial_scores(
    csv: Path | None, metrics: Sequence[str]
) -> "Iterator[Callable[[Sequence[Score]], None] | None]":
    """Keep the scores of an evaluation that is interrupted, and report where they are."""
    from denoisecli.evaluation.scores import partial_csv, partial_path

    if csv is None:
        yield None
        return
    try:
        with partial_csv(csv, metrics) as on_scores:
            yield on_scores
    except BaseException:
        if partial_path(csv).exists():
            console.info(f"the scores so far are in {partial_path(csv)}")
        raise


def _make_estimators(
    models: list[str], folders: list[Path] | None, baselines: list[str] | None
) -> "dict[str, Estimator]":
    """Return the estimators by name, models first; the model "speech" if none is given."""
    from denoisecli.evaluation.estimators import Folder, Model
    from denoisecli.models.folder import ModelFolder

    estimators: list[tuple[str, Estimator]] = []
    for model in models or ([] if folders or baselines else ["speech"]):
        name = ModelFolder(Path(model)).name
        estimators.append((name, Model(model)))
    estimators += [(folder.resolve().name, Folder(folder)) for folder in folders or []]
    estimators += [_make_baseline(text) for text in baselines or []]
    names = [name for name, _ in estimators]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two estimators are named {name!r}; rename one of them")
    return dict(estimators)


def _make_baseline(text: str) -> "tuple[str, Estimator]":
    from denoisecli.evaluation.estimators import BASELINES, Command

    name, equals, command = text.partition("=")
    if equals:
        return name, Command(command)
    if name in BASELINES:
        return name, BASELINES[name]()
    raise UsageError(f"--baseline must be {', '.join(BASELINES)} or NAME=COMMAND, not {text!r}")


def _print_result(result: "Evaluation") -> None:
    """Print means, means by group, differences to the baseline, costs and the worst files."""
    from denoisecli.evaluation import formatting
    from denoisecli.evaluation.scores import INPUT, WORSE

    number = len(result.values(INPUT, result.metrics[0]))
    files = formatting.count(number, "file")
    if result.clusters < number:
        noun = "different recording" if result.blind else "clean recording"
        files += f" of {formatting.count(result.clusters, noun)}"
    console.result(f"{files}; mean ± half of the 95 % interval")
    console.result(formatting.sample_rates(result))
    _print_means(
        result, ["estimator"], [([name], partial(result.mean, name)) for name in result.costs]
    )
    if left_out := formatting.files_in_means(result):
        console.result(left_out)
    for group_by, groups in formatting.groupings(result).items():
        rows = []
        for group, members in groups.items():
            label = f"{group}, {formatting.count(len(members), 'file')}"
            for name in result.costs:
                rows.append(([label, name], partial(result.mean, name, files=members)))
                label = ""
        _print_means(result, [group_by, "estimator"], rows)
    differences = [([name], partial(result.gain, name)) for name in result.compared]
    if differences:
        _print_means(result, [f"difference from {result.baseline}"], differences, signed=True)
    costs = [
        [name, *formatting.cost_cells(cost)] for name, cost in result.costs.items() if name != INPUT
    ]
    if costs:
        console.result("")
        console.print_table(["estimator", *formatting.COST_LABELS], costs)
    if differences and result.ranking in WORSE:
        _print_worst(result)


def _print_means(
    result: "Evaluation",
    columns: list[str],
    rows: "Sequence[tuple[list[str], Callable[[str], Interval]]]",
    *,
    signed: bool = False,
) -> None:
    """Print a table with a column for each metric; a row is its texts and a mean of a metric."""
    from denoisecli.evaluation import formatting
    from denoisecli.evaluation.metrics import DESCRIPTIONS

    def cell(interval: "Interval", decimals: int) -> str:
        failures = formatting.failures(interval)
        parts = (
            formatting.number(interval.mean, decimals, signed=signed),
            formatting.half_width(interval, decimals),
            f"({failures})" if failures else "",
        )
        return " ".join(filter(None, parts))

    console.result("")
    console.print_table(
        [*columns, *(DESCRIPTIONS[name].heading for name in result.metrics)],
        [
            [*texts, *(cell(mean(name), DESCRIPTIONS[name].decimals) for name in result.metrics)]
            for texts, mean in rows
        ],
        texts=len(columns),
    )


def _print_worst(result: "Evaluation") -> None:
    """Print how many files got worse, and those with the smallest gains."""
    from denoisecli.evaluation import formatting
    from denoisecli.evaluation.metrics import DESCRIPTIONS
    from denoisecli.evaluation.scores import WORSE, WORST

    metric = DESCRIPTIONS[result.ranking]
    decimals = 1 if metric.unit else metric.decimals
    rows = []
    for name in result.compared:
        gains = result.ranked(name)
        worst = ", ".join(
            f"{file} {formatting.number(gain, decimals, signed=True)}"
            for file, gain in list(gains.items())[:WORST]
        )
        rows.append([name, f"{len(result.worsened(name))} of {len(gains)}", worst])
    limit = f"{WORSE[result.ranking]} {metric.unit}".rstrip()
    columns = ["estimator", f"worse by > {limit}", f"smallest gains in {metric.heading}"]
    console.result("")
    console.print_table(columns, rows, texts=len(columns))
