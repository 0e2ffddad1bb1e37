"""The command that removes noise: clean."""

import math
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from denoisecli.cleaning.choices import HIGHEST_SAMPLE_RATE, Clip, Device, Engine
from denoisecli.cli import console, displays
from denoisecli.cli.options import ModelClass, Overwrite, load_keras, refuse_empty, refuse_given
from denoisecli.errors import AudioError, DenoiseError, UsageError
from denoisecli.system.atomic_files import temporary_folder
from denoisecli.system.extras import require

if TYPE_CHECKING:
    from denoisecli.audio.pipe import ByteSource
    from denoisecli.cleaning.batch import Event, Outcome
    from denoisecli.cleaning.denoiser import DenoiserOptions
    from denoisecli.cleaning.file import CleanResult, FileOptions
    from denoisecli.cleaning.targets import Job

_PIPE = "-"
_AUTO = "auto"

_model = partial(typer.Option, rich_help_panel="Model")
_output = partial(typer.Option, rich_help_panel="Output")
_batch = partial(typer.Option, rich_help_panel="Batch")
_pipes = partial(typer.Option, rich_help_panel="Pipes")
_faults = partial(typer.Option, rich_help_panel="Damaged recordings")

Sources = Annotated[
    list[str],
    typer.Argument(help="Audio files, folders, patterns such as 'takes/*.wav', or - for stdin."),
]
Output = Annotated[
    str | None,
    typer.Option(
        "--output",
        "-o",
        help="File or folder to write, or - for stdout (default: NAME.clean.EXT beside each file, "
        "FOLDER-clean beside a folder).",
    ),
]

Model = Annotated[str, _model(help="Name of a bundled model, or a model folder.")]
Strength = Annotated[
    str,
    _model(
        metavar="0..1|auto",
        help="Share of the noise to remove, from 0 to 1, or auto to let DNSMOS choose it for each "
        "recording.",
    ),
]
AttenuationLimit = Annotated[
    float | None,
    _model(min=0, help="Maximum attenuation of noise in dB, such as 12 (default: no limit)."),
]
LinkChannels = Annotated[
    bool,
    _model(
        "--link-channels",
        help="Apply the same gains to all channels, so that sound keeps its place in the stereo "
        "image.",
    ),
]
EngineOption = Annotated[
    Engine,
    _model(help="Library that runs the network; auto is onnx, or keras if only that has the GPU."),
]
DeviceOption = Annotated[Device, _model(help="Device that runs the network.")]
Threads = Annotated[
    int | None,
    _model(min=1, help="CPU threads for each recording (default: one per core, shared by --jobs)."),
]

KeepNoise = Annotated[str | None, _output(help="File or folder for the noise that is removed.")]
Plot = Annotated[
    Path | None, _output(help="Picture of the recording before and after, such as plot.png.")
]
Report = Annotated[
    Path | None,
    _output(help="HTML page to hear and see the recordings before and after, such as page.html."),
]
ClipOption = Annotated[
    Clip,
    _output(
        help="Treatment of samples beyond full scale: clamp them, rescale the recording, or none "
        "to keep them in a floating-point file."
    ),
]
Suffix = Annotated[
    str | None,
    _output(help="Format of the files in a folder, such as .flac (default: same as the input)."),
]
Subtype = Annotated[
    str | None,
    _output(help="Sample format of the output, such as PCM_24 (default: same as the input)."),
]
SampleRate = Annotated[
    int | None,
    _output(
        min=1,
        max=HIGHEST_SAMPLE_RATE,
        help="Output sample rate in Hz (default: same as the input).",
    ),
]
Mono = Annotated[bool, _output("--mono", help="Average the channels before cleaning.")]

Track = Annotated[
    int | None,
    _output(
        min=1, help="Audio track of a video, such as 2 (default: the one marked as the default)."
    ),
]

Loudness = Annotated[
    float | None,
    _output(
        min=-50,
        max=-5,
        help="Integrated loudness of the output in LUFS (EBU R 128), such as -16 for a podcast.",
    ),
]
TruePeak = Annotated[
    float | None,
    _output(
        min=-20,
        max=0,
        help="Maximum true peak in dBTP, for --loudness and --keep-loudness (default: -1).",
    ),
]
KeepLoudness = Annotated[
    bool, _output("--keep-loudness", help="Make the speech as loud as it is in the input.")
]

Jobs = Annotated[int, _batch(min=1, help="Number of recordings cleaned at the same time.")]
Cluster = Annotated[
    str | None,
    _batch(
        help="Address of a Dask scheduler whose workers clean the recordings, such as "
        "tcp://HOST:PORT."
    ),
]
SkipExisting = Annotated[
    bool, _batch("--skip-existing", help="Skip recordings whose output exists, to resume a batch.")
]
DryRun = Annotated[bool, _batch("--dry-run", help="Show what would be done, without doing it.")]
AsJson = Annotated[bool, _batch("--json", help="Print a JSON record for each recording.")]

RawRate = Annotated[
    int | None, _pipes(min=1, help="Sample rate of headerless PCM on stdin in Hz, such as 16000.")
]
RawChannels = Annotated[
    int | None, _pipes(min=1, help="Number of channels of headerless PCM (default: 1).")
]
RawSubtype = Annotated[
    str | None,
    _pipes(help="Sample format of headerless PCM, such as PCM_16 or FLOAT (default: PCM_16)."),
]

ReplaceNan = Annotated[
    bool, _faults("--replace-nan", help="Set NaN, infinite and absurdly large samples to zero.")
]
KeepReadable = Annotated[
    bool,
    _faults(
        "--keep-readable",
        help="Clean the readable part of a damaged recording, or what a pipe delivered before "
        "Ctrl-C.",
    ),
]


@dataclass(frozen=True)
class _BatchOptions:
    """Options for running and reporting the jobs of a batch."""

    jobs: int
    cluster: str | None
    skip_existing: bool
    overwrite: bool
    dry_run: bool
    as_json: bool


@dataclass(frozen=True)
class _Pages:
    """Pictures and pages about the recordings that were cleaned."""

    plot: Path | None
    report: Path | None

    def check(self, recordings: int, *, overwrite: bool) -> None:
        """Raise UsageError if they cannot be written, or if a picture does not fit the number."""
        if self.plot is not None:
            from denoisecli.audio.plot import check_target

            if recordings > 1:
                raise UsageError(f"--plot draws one recording, but there are {recordings}")
            check_target(self.plot, overwrite=overwrite)
        if self.report is not None:
            from denoisecli.evaluation.report import check_report

            check_report(self.report, overwrite=overwrite)


def clean(
    sources: Sources,
    output: Output = None,
    overwrite: Overwrite = False,
    model: Model = "speech",
    strength: Strength = "1",
    attenuation_limit: AttenuationLimit = None,
    link_channels: LinkChannels = False,
    engine: EngineOption = Engine.AUTO,
    device: DeviceOption = Device.AUTO,
    threads: Threads = None,
    model_class: ModelClass = None,
    suffix: Suffix = None,
    subtype: Subtype = None,
    sample_rate: SampleRate = None,
    mono: Mono = False,
    track: Track = None,
    clip: ClipOption = Clip.CLAMP,
    loudness: Loudness = None,
    true_peak: TruePeak = None,
    keep_loudness: KeepLoudness = False,
    keep_noise: KeepNoise = None,
    plot: Plot = None,
    report: Report = None,
    jobs: Jobs = 1,
    cluster: Cluster = None,
    skip_existing: SkipExisting = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    raw_rate: RawRate = None,
    raw_channels: RawChannels = None,
    raw_subtype: RawSubtype = None,
    replace_nan: ReplaceNan = False,
    keep_readable: KeepReadable = False,
) -> None:
    """Remove the noise from recordings.

    Example: `denoise clean noisy.wav -o out.wav`,
    a folder: `denoise clean takes/ -o cleaned/ --jobs 2`,
    a video: `denoise clean talk.mp4 -o talk-clean.mp4 --loudness -16`,
    a pipe: `ffmpeg -i talk.mp4 -f wav - | denoise clean - -o talk.wav`
    """
    from denoisecli.audio.pipe import RawFormat
    from denoisecli.cleaning.denoiser import DenoiserOptions
    from denoisecli.cleaning.file import FileOptions
    from denoisecli.models.catalogue import find_model

    refuse_empty(
        {
            **{"--output": output, "--keep-noise": keep_noise, "--model": model},
            **{"--plot": plot, "--report": report},
        }
    )
    folder = find_model(model).path  # once, instead of an error for every file
    console.detail(f"model {folder}, engine {engine}, device {device}")
    if engine is Engine.KERAS or model_class is not None:
        load_keras("the Keras engine")
    denoiser = DenoiserOptions(
        model,
        _strength(strength),
        attenuation_limit,
        engine,
        device,
        threads,
        model_class,
        link_channels,
    )
    if true_peak is not None and loudness is None and not keep_loudness:
        raise UsageError("--true-peak needs --loudness or --keep-loudness")
    files = FileOptions(
        sample_rate=sample_rate,
        subtype=subtype,
        mono=mono,
        track=track,
        clip=clip,
        replace_nan=replace_nan,
        keep_readable=keep_readable,
        loudness=loudness,
        keep_loudness=keep_loudness,
        true_peak=-1.0 if true_peak is None else true_peak,
        auto_strength=strength == _AUTO,
        raw=None
        if raw_rate is None
        else RawFormat(raw_rate, raw_channels or 1, raw_subtype or "PCM_16"),
    )
    batch = _BatchOptions(jobs, cluster, skip_existing, overwrite, dry_run, as_json)
    if skip_existing and overwrite:
        raise UsageError("--skip-existing and --overwrite cannot be combined")
    if raw_rate is None:
        given = {"--raw-channels": raw_channels, "--raw-subtype": raw_subtype}
        refuse_given(given, "needs --raw-rate")
    elif _PIPE not in sources:
        raise UsageError("--raw-rate is for stdin; give - as the recording")
    if keep_noise == _PIPE:
        raise UsageError("--keep-noise takes a file or a folder, not a pipe")
    if keep_noise and _PIPE in (*sources, output) and not Path(keep_noise).suffix:
        raise UsageError(
            f"with a pipe, --keep-noise takes a file such as noise.wav, not {keep_noise}"
        )
    if _PIPE not in (*sources, output):
        pages = _Pages(plot, report)
        _clean_files(sources, output, keep_noise, suffix, pages, denoiser, files, batch)
        return
    if len(sources) > 1 or any((plot, report, jobs > 1, cluster, skip_existing, dry_run, suffix)):
        raise UsageError(
            "a pipe holds a single recording, without --plot, --report, --jobs, --cluster, "
            "--skip-existing, --dry-run and --suffix"
        )
    _clean_pipe(sources[0], output or _PIPE, keep_noise, denoiser, files, batch)


def _strength(text: str) -> float:
    """Return the strength of the denoiser; 1 if it is chosen for each recording."""
    if text == _AUTO:
        require("dnsmos", "speechmos", purpose="--strength auto")
        return 1.0
    try:
        value = float(text)
    except ValueError as error:
        raise UsageError(f"--strength takes 0 to 1 or auto, but was given {text!r}") from error
    if not 0 <= value <= 1:
        raise UsageError(f"--strength takes 0 to 1 or auto, but was given {text}")
    return value


def _clean_pipe(
    source: str,
    target: str,
    noise_target: str | None,
    denoiser: "DenoiserOptions",
    files: "FileOptions",
    batch: _BatchOptions,
) -> None:
    from denoisecli.audio.pipe import UntilStopped
    from denoisecli.system.interrupts import stop_requests, stopped

    if source == _PIPE and sys.stdin is None:
        raise UsageError("stdin is closed; nothing can be read from it")
    if target == _PIPE:
        if sys.stdout is None:
            raise UsageError("stdout is closed; write a file with --output")
        if batch.as_json:
            raise UsageError("stdout cannot hold both the sound and --json")
        if sys.stdout.isatty():
            raise UsageError(
                "stdout is a terminal, which cannot play sound; redirect it, or write a file "
                "with --output"
            )
    with ExitStack() as stack:
        recording: str | ByteSource = source
        stop = None
        if source == _PIPE:
            recording = sys.stdin.buffer
            if files.keep_readable:  # Ctrl-C ends the recording, which cannot be repeated
                stop = stack.enter_context(stop_requests())
                recording = UntilStopped(recording, stop)
        result = denoiser.load().clean_file(
            recording,
            sys.stdout.buffer if target == _PIPE else target,
            files,
            noise_target=noise_target,
            overwrite=batch.overwrite,
        )
    if batch.as_json:
        console.print_json(result.record())
    _report_result(result)
    if stop is not None and stop.is_set():
        raise stopped("stopped; what was received until then is cleaned")


def _clean_files(
    sources: list[str],
    output: str | None,
    keep_noise: str | None,
    suffix: str | None,
    pages: _Pages,
    denoiser: "DenoiserOptions",
    files: "FileOptions",
    batch: _BatchOptions,
) -> None:
    from denoisecli.cleaning.targets import plan

    planned = plan(sources, output, suffix=suffix, noise_output=keep_noise)
    for note in planned.notes:
        console.info(note)
    pages.check(len(planned.jobs), overwrite=batch.overwrite)  # before the work, not after it
    _clean_planned(planned.jobs, pages, denoiser, files, batch)
    if planned.unreadable:
        names = ", ".join(map(str, planned.unreadable))
        raise DenoiseError(f"some folders cannot be read and were left out: {names}")


def _clean_planned(
    jobs: "Sequence[Job]",
    pages: _Pages,
    denoiser: "DenoiserOptions",
    files: "FileOptions",
    batch: _BatchOptions,
) -> None:
    if batch.dry_run:
        for job in jobs:
            _report_planned(job, batch)
        return
    if pages.report is None and pages.plot is None:
        _report_cleaned(_run(jobs, denoiser, files, batch))
        return
    with temporary_folder() as folder:
        in_place = [
            job for job in jobs if batch.overwrite and job.source.resolve() == job.target.resolve()
        ]
        before = _noisy_copies(in_place, folder, files, whole=pages.plot is not None)
        outcomes = _run(jobs, denoiser, files, batch)
        shown = [outcome.job for outcome in outcomes if outcome.error is None]
        if files.keep_readable or files.replace_nan or (pages.plot and files.track):
            others = [job for job in shown if job not in in_place]
            before |= _noisy_copies(others, folder, files, whole=pages.plot is not None)
        if pages.report is not None:
            _write_report(outcomes, before, pages.report, denoiser, files, batch)
        _report_cleaned(outcomes)
        if pages.plot is not None:
            _plot(shown[0], before, folder, pages.plot, files, batch)


def _noisy_copies(
    jobs: "Sequence[Job]", folder: Path, files: "FileOptions", *, whole: bool
) -> "dict[Job, Path]":
    """Copy the noisy sound of recordings, to show it after they are replaced or as it was read.

    Unless it is ``whole``, only the part that a page shows is copied.
    """
    from denoisecli.evaluation.cleaned import LONGEST_SECONDS, copy_middle

    copies: dict[Job, Path] = {}
    if not jobs:
        return copies
    with displays.progress("copying", unit="files") as on_progress:
        for number, job in enumerate(jobs):
            on_progress(number, len(jobs))
            copy = Path(tempfile.mkdtemp(dir=folder), "before.w64")
            # An error stops only this recording, when it is cleaned.
            with suppress(AudioError, UsageError):
                copy_middle(
                    job.source,
                    copy,
                    seconds=math.inf if whole else LONGEST_SECONDS,
                    track=files.track,
                    replace_nan=files.replace_nan,
                    keep_readable=files.keep_readable,
                )
                copies[job] = copy
    return copies


def _clean_track(job: "Job", files: "FileOptions") -> int | None:
    """Return the number of the cleaned audio track in the output, which may be a video."""
    from denoisecli.audio.formats import CONTAINERS

    return files.track if job.target.suffix.lower() in CONTAINERS else None


def _plot(
    job: "Job",
    before: "Mapping[Job, Path]",
    folder: Path,
    picture: Path,
    files: "FileOptions",
    batch: _BatchOptions,
) -> None:
    """Draw a recording before and after."""
    from denoisecli.audio.plot import plot_files
    from denoisecli.evaluation.cleaned import copy_middle

    clean = job.target
    if (track := _clean_track(job, files)) is not None:
        clean = folder / "after.w64"
        copy_middle(job.target, clean, seconds=math.inf, track=track)
    titles = [job.source.name, job.target.name]
    if titles[0] == titles[1]:
        titles = [f"{titles[0]} before", f"{titles[1]} after"]
    noisy = before.get(job, job.source)
    plot_files([noisy, clean], picture, titles=titles, overwrite=batch.overwrite)


def _write_report(
    outcomes: "Sequence[Outcome]",
    before: "Mapping[Job, Path]",
    report: Path,
    denoiser: "DenoiserOptions",
    files: "FileOptions",
    batch: _BatchOptions,
) -> None:
    """Write a page about the recordings that are clean; ``before`` are copies of the noisy sound.

    Nothing is written if there are none.
    """
    from denoisecli.evaluation.cleaned import Cleaned, write_cleaning_report

    shown = [outcome for outcome in outcomes if outcome.error is None]
    if not shown:
        return
    names = [outcome.job.source.name for outcome in shown]
    recordings = [
        Cleaned(
            name=name if names.count(name) == 1 else str(outcome.job.source),
            noisy=before.get(outcome.job, outcome.job.source),
            clean=outcome.job.target,
            track=None if outcome.job in before else files.track,
            clean_track=_clean_track(outcome.job, files),
            gain=1.0 if outcome.result is None else outcome.result.gain,
        )
        for name, outcome in zip(names, shown, strict=True)
    ]
    with displays.progress("comparing", unit="files") as on_progress:
        write_cleaning_report(
            recordings,
            report,
            model=_shown_name(denoiser.model),
            overwrite=batch.overwrite,
            on_progress=on_progress,
        )
    console.info(f"wrote {report}: {report.stat().st_size / 2**20:.1f} MiB")


def _shown_name(model: str | Path) -> str:
    """Return the name of a model for a page, on which that of the noisy sound is taken."""
    from denoisecli.evaluation.scores import INPUT
    from denoisecli.models.folder import ModelFolder

    name = ModelFolder(Path(model)).name
    return f"{name}-model" if name == INPUT else name


def _run(
    jobs: "Sequence[Job]",
    denoiser: "DenoiserOptions",
    files: "FileOptions",
    batch: _BatchOptions,
) -> "list[Outcome]":
    """Clean the files, and show the progress."""
    from denoisecli.cleaning.batch import Advanced, Started, run
    from denoisecli.system.pools import cluster

    ended: list[Outcome] = []
    with ExitStack() as stack:
        executor = stack.enter_context(cluster(batch.cluster)) if batch.cluster else None
        display = stack.enter_context(displays.CleaningDisplay(len(jobs)))

        def on_event(event: "Event") -> None:
            if isinstance(event, Started):
                display.start(event.job, event.job.source.name)
            elif isinstance(event, Advanced):
                display.advance(event.job, event.seconds, event.total)
            else:
                ended.append(event)
                display.end(event.job, event.result.seconds if event.result else 0.0)
                if batch.as_json:
                    console.print_json(_outcome_record(event))

        try:
            return run(
                jobs,
                denoiser=denoiser,
                files=files,
                workers=batch.jobs,
                executor=executor,
                overwrite=batch.overwrite,
                skip_existing=batch.skip_existing,
                on_event=on_event,
            )
        except KeyboardInterrupt:
            stack.close()
            _report_batch(ended, total=len(jobs))
            raise


def _report_planned(job: "Job", batch: _BatchOptions) -> None:
    status = job.status(overwrite=batch.overwrite, skip_existing=batch.skip_existing)
    if batch.as_json:
        record = {"status": status, "source": job.source, "target": job.target}
        console.print_json(record)
        return
    notes = {"skipped": " (exists: would be skipped)", "failed": " (exists: would fail)"}
    console.result(f"{job.source} -> {job.target}{notes.get(status, '')}")


def _report_cleaned(outcomes: "Sequence[Outcome]") -> None:
    """Report how the jobs ended; raise an exception if one failed."""
    if len(outcomes) > 1:
        _report_batch(outcomes, total=len(outcomes))
        failed = [outcome for outcome in outcomes if outcome.error is not None]
        if failed:
            if console.get_verbosity().quiet:  # the table is not printed
                for outcome in failed:
                    _warn(outcome.job.source, str(outcome.error))
            raise DenoiseError(f"{len(failed)} of {len(outcomes)} files failed")
        return
    (outcome,) = outcomes
    if outcome.error is not None:
        raise outcome.error
    if outcome.result is not None:
        _report_result(outcome.result)
    else:
        console.info(f"{outcome.job.target} exists: skipped")


def _report_result(result: "CleanResult") -> None:
    for warning in result.warnings:
        _warn(result.source, warning)
    console.info(
        f"{result.target}: {result.seconds:.1f} s in {result.wall_seconds:.2f} s "
        f"({_speed(result)} real time), {_levels(result)}"
    )


def _warn(source: Path, message: str) -> None:
    """Print a warning that names the recording."""
    console.warn(message if str(source) in message else f"{source}: {message}")


def _report_batch(outcomes: "Sequence[Outcome]", *, total: int) -> None:
    """Print a table of the outcomes so far, and a line of totals."""
    rows = []
    for outcome in outcomes:
        result, note, speed = outcome.result, "", ""
        if outcome.error is not None:
            note = _without_name(outcome.job.source, str(outcome.error))
        if result is not None:
            warnings = (_without_name(result.source, warning) for warning in result.warnings)
            note = "; ".join((_levels(result), *warnings))
            speed = _speed(result)
        rows.append([str(outcome.job.source), outcome.status, note, speed])
    if rows:
        console.info_table(["file", "status", "result", "speed"], rows, texts=3)
    counts = Counter(str(outcome.status) for outcome in outcomes)
    parts = [f"{counts[status]} {status}" for status in ("done", "skipped", "failed")]
    if len(outcomes) < total:
        parts.append(f"{total - len(outcomes)} left")
    seconds = sum(outcome.result.seconds for outcome in outcomes if outcome.result)
    console.info(f"{', '.join(parts)}; {seconds / 60:.1f} min of audio")


def _speed(result: "CleanResult") -> str:
    return f"{result.seconds / result.wall_seconds:.0f}x"


def _levels(result: "CleanResult") -> str:
    levels = f"level {result.rms_in_dbfs:.1f} -> {result.rms_out_dbfs:.1f} dBFS"
    if result.strength is not None:
        levels = f"strength {result.strength:g}, {levels}"
    if result.loudness_lufs is None:
        return levels
    return (
        f"{levels}, loudness {result.loudness_lufs:.1f} LUFS, "
        f"true peak {result.true_peak_dbfs:.1f} dBTP"
    )


def _without_name(source: Path, message: str) -> str:
    """Return a message without the name of the file that it begins with."""
    return message.removeprefix(f"{source} ")


def _outcome_record(outcome: "Outcome") -> dict[str, object]:
    record: dict[str, object] = {
        "status": outcome.status,
        "source": outcome.job.source,
        "target": outcome.job.target,
    }
    if outcome.error is not None:
        record["error"] = str(outcome.error)
    return record | (outcome.result.record() if outcome.result else {})
