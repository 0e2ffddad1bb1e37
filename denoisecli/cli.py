"""The command line: each command parses, calls its core module and shows the result."""

import os
import sys
from contextlib import ExitStack
from dataclasses import asdict
from enum import StrEnum
from importlib.metadata import version
from math import isnan
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from denoisecli import console
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.files import refuse_existing


class Commands(TyperGroup):
    """Turns expected failures into one sentence and an honest exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take --debug and --quiet wherever they stand."""
        own = args[: args.index("--")] if "--" in args else args
        console.Settings.debug = "--debug" in own
        console.Settings.quiet = "--quiet" in own
        rest = [arg for arg in own if arg not in ("--debug", "--quiet")] + args[len(own) :]
        return super().parse_args(ctx, rest)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except DenoiseError as error:
            console.fail(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            console.fail(DenoiseError("stopped"))
            raise typer.Exit(130) from error
        except (OSError, MemoryError) as error:
            console.fail(error)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
)


def main() -> None:
    """Entry point of the `denoise` script."""
    app()


def _load_tensorflow() -> None:
    """Import TensorFlow and find the devices, which it does talkatively."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with console.native_chatter_muted():
        import tensorflow

        tensorflow.config.list_physical_devices()


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"denoise {version('denoisecli')}")
        raise typer.Exit
    return wanted


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors and warnings only.")] = False,
) -> None:
    """Teach a U-Net to remove noise from sound, and remove it."""


AudioFile = Annotated[Path, typer.Argument(help="An audio file.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Where to write.", show_default=False)]
Ratio = Annotated[
    str | None,
    typer.Option(help="Share of the noise, 0..1, or a range as 0.05:0.5.", show_default=False),
]
Snr = Annotated[
    str | None,
    typer.Option(help="The same as an SNR in dB, or a range as -5:20.", show_default=False),
]
Seed = Annotated[int, typer.Option(help="Chooses all that is left to chance.")]
NoMatchLevel = Annotated[
    bool, typer.Option("--no-match-level", help="Do not scale the noise to the clean's level.")
]


class Scale(StrEnum):
    """Scales of a stored spectrogram."""

    magnitude = "magnitude"
    power = "power"
    db = "db"
    mel = "mel"


@app.command()
def clean(
    sources: Annotated[
        list[str],
        typer.Argument(help="Files, folders, patterns, or - for a pipe.", show_default=False),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="A file, a folder, or - for a pipe.", show_default=False
        ),
    ],
    model: Annotated[
        str, typer.Option(help="A model folder or the name of a bundled model.")
    ] = "speech",
    strength: Annotated[
        float, typer.Option(min=0, max=1, help="How much of the noise is taken out.")
    ] = 1.0,
    attenuation_limit: Annotated[
        float | None,
        typer.Option(min=0, help="Take nothing down by more than this, dB.", show_default=False),
    ] = None,
    keep_noise: Annotated[
        str | None, typer.Option(help="Write what was removed here.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw before and after here.", show_default=False)
    ] = None,
    clip: Annotated[str, typer.Option(help="Beyond full scale: clamp, rescale or none.")] = "clamp",
    suffix: Annotated[
        str | None, typer.Option(help="Format in a folder, as .flac.", show_default=False)
    ] = None,
    subtype: Annotated[
        str | None, typer.Option(help="Sample format, as PCM_24.", show_default=False)
    ] = None,
    sample_rate: Annotated[
        int | None, typer.Option(help="Of what is written, Hz.", show_default=False)
    ] = None,
    mono: Annotated[bool, typer.Option("--mono", help="Write the mean of the channels.")] = False,
    replace_nan: Annotated[
        bool, typer.Option("--replace-nan", help="Set samples that are no numbers to zero.")
    ] = False,
    keep_readable: Annotated[
        bool, typer.Option("--keep-readable", help="Clean what is left of damaged files.")
    ] = False,
    raw_rate: Annotated[
        int | None, typer.Option(help="A pipe without a header: Hz.", show_default=False)
    ] = None,
    raw_channels: Annotated[int, typer.Option(min=1, help="Its channels.")] = 1,
    raw_subtype: Annotated[str, typer.Option(help="Its samples.")] = "PCM_16",
    engine: Annotated[str, typer.Option(help="auto, onnx or keras.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or gpu.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of a file.", show_default=False)
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Files at a time.")] = 1,
    cluster: Annotated[
        str | None, typer.Option(help="Dask scheduler, tcp://HOST:PORT.", show_default=False)
    ] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave out what is there; resumes a batch.")
    ] = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON record for each file.")
    ] = False,
) -> None:
    """Remove the noise from recordings.

    Example: `denoise clean noisy.wav -o out.wav`,
    a folder: `denoise clean takes/ -o cleaned/ --jobs 2`,
    a pipe: `ffmpeg -i talk.mp4 -f wav - | denoise clean - -o - > talk.wav`
    """
    from denoisecli.pipe import RawFormat
    from denoisecli.recordings import FileOptions

    raw = None if raw_rate is None else RawFormat(raw_rate, raw_channels, raw_subtype)
    files = FileOptions(
        sample_rate=sample_rate,
        subtype=subtype,
        mono=mono,
        clip=clip,
        replace_nan=replace_nan,
        keep_readable=keep_readable,
        raw=raw,
    )
    settings = {
        "model": model,
        "strength": strength,
        "attenuation_limit_db": attenuation_limit,
        "engine": engine,
        "device": device,
        "threads": threads,
    }
    if "-" in (*sources, output):
        if len(sources) > 1 or plot or jobs > 1 or cluster or skip_existing or dry_run or suffix:
            raise UsageError("a pipe is for a single recording, without options of batches")
        _clean_pipe(sources[0], output, keep_noise, settings, files, overwrite, as_json)
        return
    if raw is not None:
        raise UsageError("--raw-rate is for pipes; give - as the recording")

    from denoisecli.plan import plan

    planned = plan(sources, output, suffix=suffix, noise_output=keep_noise)
    if plot is not None and len(planned) > 1:
        raise UsageError(f"--plot draws one recording, but there are {len(planned)}")
    if dry_run:
        for job in planned:
            exists = " (exists)" if job.target.exists() else ""
            console.result(f"{job.source} -> {job.target}{exists}")
        return

    from denoisecli import batch

    with ExitStack() as stack:
        executor = None if cluster is None else stack.enter_context(batch.cluster(cluster))
        display = stack.enter_context(console.CleaningDisplay(len(planned)))

        def tell(event: batch.Event) -> None:
            if isinstance(event, batch.Started):
                display.start(event.job, event.job.source.name)
            elif isinstance(event, batch.Advanced):
                display.advance(event.job, event.seconds, event.total)
            else:
                display.end(event.job, event.result.seconds if event.result else 0.0)
                if as_json:
                    console.print_json(_outcome_record(event))

        outcomes = batch.run(
            planned,
            settings=settings,
            options=files,
            workers=jobs,
            executor=executor,
            overwrite=overwrite,
            skip_existing=skip_existing,
            tell=tell,
        )
    _report_cleaned(outcomes)
    if plot is not None:
        from denoisecli.plot import plot_files

        plot_files([planned[0].source, planned[0].target], plot, overwrite=overwrite)


def _clean_pipe(
    source: str,
    target: str,
    noise_target: str | None,
    settings: dict[str, Any],
    files: Any,
    overwrite: bool,
    as_json: bool,
) -> None:
    from denoisecli.enhance import Denoiser

    if target == "-" and as_json:
        raise UsageError("stdout cannot hold both the sound and --json")
    result = Denoiser(**settings).clean_file(
        sys.stdin.buffer if source == "-" else source,
        sys.stdout.buffer if target == "-" else target,
        files,
        noise_target=noise_target,
        overwrite=overwrite,
    )
    if as_json:
        console.print_json(result.record())
    _report_result(result)


def _report_result(result: Any) -> None:
    for warning in result.warnings:
        console.warn(f"{result.source}: {warning}")
    console.say(
        f"{result.target}: {result.seconds:.1f} s in {result.wall_seconds:.2f} s "
        f"({result.seconds / result.wall_seconds:.0f}x real time), "
        f"level {result.rms_in_dbfs:.1f} -> {result.rms_out_dbfs:.1f} dBFS"
    )


def _report_cleaned(outcomes: list[Any]) -> None:
    """Say how it went; raise if anything failed."""
    if len(outcomes) == 1 and outcomes[0].error is not None:
        raise outcomes[0].error
    for outcome in outcomes:
        if outcome.result is not None:
            _report_result(outcome.result)
    if len(outcomes) == 1:
        if outcomes[0].status == "skipped":
            console.say(f"{outcomes[0].job.target} is there already: skipped")
        return
    counts = {
        status: sum(outcome.status == status for outcome in outcomes)
        for status in ("done", "skipped", "failed")
    }
    console.say(", ".join(f"{count} {status}" for status, count in counts.items()))
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if failed:
        lines = "\n".join(f"  {outcome.job.source}: {outcome.error}" for outcome in failed)
        raise DenoiseError(f"{len(failed)} of {len(outcomes)} files failed:\n{lines}")


def _outcome_record(outcome: Any) -> dict[str, Any]:
    record = {"status": outcome.status, "source": str(outcome.job.source)}
    record |= {"target": str(outcome.job.target)}
    if outcome.error is not None:
        record["error"] = str(outcome.error)
    return record | (outcome.result.record() if outcome.result else {})


@app.command()
def spectrogram(
    source: AudioFile,
    output: Output,
    scale: Annotated[Scale, typer.Option(help="What the matrix holds.")] = Scale.magnitude,
    n_fft: Annotated[int, typer.Option(help="Length of the transform in samples.")] = 1024,
    hop_length: Annotated[int, typer.Option(help="Samples between frames.")] = 256,
    window: Annotated[str, typer.Option(help="hann, sqrt_hann, hamming, ...")] = "hann",
    n_mels: Annotated[int, typer.Option(help="Bands of the mel scale.")] = 80,
    sample_rate: Annotated[
        int | None, typer.Option(help="Resample first, Hz.", show_default=False)
    ] = None,
    phase: Annotated[bool, typer.Option(help="Keep the phase, so that --invert is exact.")] = True,
    invert: Annotated[
        bool, typer.Option("--invert", help="The other way: .npz to an audio file.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn audio into a spectrogram (.npz, or .npy for the bare matrix), or back.

    Example: `denoise spectrogram talk.wav -o talk.npz --scale db`,
    back: `denoise spectrogram talk.npz --invert -o talk.wav`
    """
    from denoisecli.spectrogram import invert_file, spectrogram_file

    if invert:
        gain = invert_file(source, output, overwrite=overwrite)
        if gain < 1:
            console.warn(f"scaled by {gain:.3f} to stay within full scale")
        console.say(f"wrote {output}")
        return
    made = spectrogram_file(
        source,
        output,
        sample_rate=sample_rate,
        n_fft=n_fft,
        hop_length=hop_length,
        window=window,
        scale=scale.value,
        n_mels=n_mels,
        phase=phase,
        overwrite=overwrite,
    )
    frequency, timesteps = made.matrix.shape
    console.say(f"wrote {output}: {frequency} frequencies x {timesteps} timesteps, {made.scale}")


@app.command()
def plot(
    sources: Annotated[
        list[Path], typer.Argument(help="Audio files or .npz, stacked.", show_default=False)
    ],
    output: Output,
    waveform: Annotated[bool, typer.Option("--waveform", help="Draw waveforms too.")] = False,
    dynamic_range: Annotated[float, typer.Option(help="dB shown below the loudest.")] = 80.0,
    max_frequency: Annotated[
        float | None, typer.Option(help="Upper end in Hz.", show_default=False)
    ] = None,
    width: Annotated[float, typer.Option(help="Inches.")] = 10.0,
    dpi: Annotated[int, typer.Option(help="Pixels per inch.")] = 150,
    overwrite: Overwrite = False,
) -> None:
    """Draw spectrograms under one another, as a PNG, SVG or PDF.

    Example: `denoise plot noisy.wav out.wav -o before-after.png`
    """
    from denoisecli.plot import plot_files

    plot_files(
        sources,
        output,
        waveform=waveform,
        dynamic_range=dynamic_range,
        max_frequency=max_frequency,
        width=width,
        dpi=dpi,
        overwrite=overwrite,
    )
    console.say(f"wrote {output}")


@app.command()
def mix(
    clean: Annotated[Path, typer.Argument(help="The clean recording.", show_default=False)],
    noise: Annotated[Path, typer.Argument(help="The noise.", show_default=False)],
    output: Output,
    ratio: Ratio = None,
    snr: Snr = None,
    seed: Seed = 0,
    no_match_level: NoMatchLevel = False,
    overwrite: Overwrite = False,
) -> None:
    """Mix noise into a clean recording, (1 - ratio) * clean + ratio * noise.

    Example: `denoise mix speech.wav rain.wav --snr 5 -o noisy.wav`
    """
    from denoisecli.mix import mix_files, ratio_from_snr

    ratio_number, snr_number = _number(ratio, "--ratio"), _number(snr, "--snr")
    if (ratio_number is None) == (snr_number is None):
        raise UsageError("give either --ratio or --snr")
    if snr_number is not None and no_match_level:
        raise UsageError("an SNR can only be had when levels are matched; give --ratio")
    share = ratio_number if snr_number is None else ratio_from_snr(snr_number)
    assert share is not None
    made = mix_files(
        clean,
        noise,
        output,
        ratio=share,
        seed=seed,
        match_level=not no_match_level,
        overwrite=overwrite,
    )
    if made.gain < 1:
        console.warn(f"scaled by {made.gain:.3f} so that the mix does not pass full scale")
    console.say(f"wrote {output}: ratio {made.ratio:.3f}, SNR {made.snr_db:.1f} dB")


@app.command("build-dataset")
def build_dataset(
    clean: Annotated[Path, typer.Argument(help="Folder of clean recordings.", show_default=False)],
    noise: Annotated[Path, typer.Argument(help="Folder of noises.", show_default=False)],
    ratio: Ratio = None,
    snr: Snr = None,
    split: Annotated[float, typer.Option(help="Share of the files that train.")] = 0.8,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder that the sets are put into.")
    ] = Path("data"),
    train_name: Annotated[str, typer.Option(help="Folder of the training set.")] = "train",
    test_name: Annotated[str, typer.Option(help="Folder of the test set.")] = "test",
    group_by: Annotated[
        str, typer.Option(help="Split by file, or by folder to keep speakers on one side.")
    ] = "file",
    sample_rate: Annotated[int, typer.Option(help="Hz.")] = 16000,
    segment: Annotated[
        float | None, typer.Option(help="Cut recordings to this many s.", show_default=False)
    ] = None,
    mixes_per_clip: Annotated[int, typer.Option(help="Each with another noise.")] = 1,
    kind: Annotated[str, typer.Option(help="Store waveform or spectrogram pairs.")] = "waveform",
    seed: Seed = 0,
    no_match_level: NoMatchLevel = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Files at a time.", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Mix two folders of recordings into a training and a test set.

    Example: `denoise build-dataset clean/ noise/ --snr=-5:20 --split 0.9`
    """
    _load_tensorflow()
    from denoisecli.dataset import Recipe, build, load_manifest

    recipe = Recipe(
        ratio=_range(ratio, "--ratio"),
        snr_db=_range(snr, "--snr"),
        split=split,
        group_by=group_by,  # type: ignore[arg-type]  # Recipe checks it
        sample_rate=sample_rate,
        segment=segment,
        mixes_per_clip=mixes_per_clip,
        match_level=not no_match_level,
        kind=kind,  # type: ignore[arg-type]
        seed=seed,
    )
    with console.progress("building", unit="steps") as tell:
        build(
            clean,
            noise,
            output,
            recipe,
            train_name=train_name,
            test_name=test_name,
            jobs=jobs,
            overwrite=overwrite,
            progress=tell,
        )
    manifest = load_manifest(output)
    for name, facts in manifest["sets"].items():
        console.say(
            f"{name}: {facts['mixes']} mixes, {facts['hours']:.2f} h, from "
            f"{facts['clean_files']} clean and {facts['noise_files']} noise files "
            f"-> {output / facts['folder']}"
        )
    if manifest["skipped"]:
        first = manifest["skipped"][0]
        console.warn(
            f"{len(manifest['skipped'])} files were left out, e.g. {first['file']}: "
            f"{first['reason']}; {output / 'dataset.json'} lists them all"
        )


@app.command()
def train(
    spec: Annotated[
        str, typer.Argument(help="A spec file or the name of a bundled one.", show_default=False)
    ],
    data: Annotated[Path, typer.Option(help="Folder made by build-dataset.")] = Path("data"),
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/NAME.", show_default=False)
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over.")] = False,
    init_from: Annotated[
        str | None,
        typer.Option(help="A model whose weights to start with.", show_default=False),
    ] = None,
) -> None:
    """Train a model by its spec; the same command goes on after a stop.

    Example: `denoise train tiny`, then `denoise clean noisy.wav -o out.wav --model runs/tiny`
    """
    from denoisecli.models import find_model, read_metrics
    from denoisecli.spec import load_spec

    start = None if init_from is None else find_model(init_from)
    loaded = load_spec(spec)  # before TensorFlow: a misspelt key is reported at once
    _load_tensorflow()
    from denoisecli.train import train as train_model

    with console.TrainingDisplay() as display:
        folder = train_model(
            loaded,
            data,
            run or Path("runs") / loaded.name,
            display,
            fresh=fresh,
            init_from=start,
        )
    metrics = read_metrics(folder)
    console.say(
        f"wrote {folder}: {metrics['epochs']} epochs, {metrics['audio_hours']:.1f} hours of audio "
        f"in {metrics['minutes']:.1f} min; on the test set SI-SDR improves by "
        f"{metrics['test']['si_sdr_improvement']:.2f} dB"
    )


@app.command()
def spec(
    name: Annotated[
        str | None,
        typer.Argument(help="A spec file or the name of a bundled one.", show_default=False),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of specs, for editors.")
    ] = False,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the spec with all its defaults.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Check a spec and show what it builds: layers, parameters, arithmetic, look-ahead.

    Example: `denoise spec speech`
    """
    from denoisecli.spec import json_schema, load_spec

    if schema:
        console.print_json(json_schema(), indent=2)
        return
    if name is None:
        raise UsageError("name a spec, or give --schema")
    loaded = load_spec(name)
    if resolved:
        console.print_json(loaded.model_dump(mode="json"), indent=2)
        return
    _load_tensorflow()
    from denoisecli.describe import describe

    facts = describe(loaded)
    if as_json:
        console.print_json(asdict(facts))
        return
    rows = [
        [
            row.name,
            row.kind,
            *map(str, (row.shape[0], f"{row.shape[1]:g}", row.shape[2])),
            f"{row.parameters:,}",
            f"{row.macs / 1e6:.1f}",
        ]
        for row in facts.layers
    ]
    columns = ["layer", "kind", "bands", "frames/s", "channels", "parameters", "MMAC/s"]
    console.print_table(columns, rows, texts=2)
    console.say(
        f"{loaded.name}: {facts.parameters:,} parameters, {facts.macs / 1e6:.0f} million "
        f"multiply-accumulates per second of audio, sees {_seconds(facts.past)} back and "
        f"{_seconds(facts.future)} ahead"
    )


@app.command()
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


@app.command()
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


def _seconds(value: float) -> str:
    return "all" if value == float("inf") else f"{value * 1000:.0f} ms"


def _number(text: str | None, option: str) -> float | None:
    if text is None:
        return None
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{option} wants a number, found {text!r}") from error


def _range(text: str | None, option: str) -> float | tuple[float, float] | None:
    """A number, or LOW:HIGH."""
    if text is None or ":" not in text:
        return _number(text, option)
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError as error:
        raise UsageError(f"{option} wants a number or LOW:HIGH, found {text!r}") from error
