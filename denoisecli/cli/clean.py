"""The command that removes noise: clean."""

import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from denoisecli.cli import console, displays
from denoisecli.cli.options import (
    Overwrite,
)
from denoisecli.errors import DenoiseError, UsageError


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
    a pipe: `ffmpeg -i talk.mp4 -f wav - | denoise clean - -o talk.wav`
    """
    from denoisecli.audio.pipe import RawFormat
    from denoisecli.cleaning.file import FileOptions
    from denoisecli.models.catalogue import find_model

    find_model(model)  # once, not as a failure of every file

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
    if skip_existing and overwrite:
        raise UsageError("--skip-existing and --overwrite exclude one another")
    if "-" in (*sources, output):
        if len(sources) > 1 or plot or jobs > 1 or cluster or skip_existing or dry_run or suffix:
            raise UsageError(
                "a pipe is for a single recording, without --plot, --jobs, --cluster, "
                "--skip-existing, --dry-run and --suffix"
            )
        _clean_pipe(sources[0], output, keep_noise, settings, files, overwrite, as_json)
        return
    if raw is not None:
        raise UsageError("--raw-rate is for pipes; give - as the recording")

    from denoisecli.cleaning.targets import plan

    planned = plan(sources, output, suffix=suffix, noise_output=keep_noise)
    if plot is not None:
        from denoisecli.audio.plot import check_target, plot_files

        if len(planned) > 1:
            raise UsageError(f"--plot draws one recording, but there are {len(planned)}")
        check_target(plot, overwrite=overwrite)  # before the work, not behind it
    if dry_run:
        for job in planned:
            _report_planned(job, overwrite=overwrite, skip=skip_existing, as_json=as_json)
        return

    from denoisecli.cleaning import batch
    from denoisecli.system import pools

    with ExitStack() as stack:
        executor = None if cluster is None else stack.enter_context(pools.cluster(cluster))
        display = stack.enter_context(displays.CleaningDisplay(len(planned)))

        ended = []

        def tell(event: batch.Event) -> None:
            if isinstance(event, batch.Started):
                display.start(event.job, event.job.source.name)
            elif isinstance(event, batch.Advanced):
                display.advance(event.job, event.seconds, event.total)
            else:
                ended.append(event)
                display.end(event.job, event.result.seconds if event.result else 0.0)
                if as_json:
                    console.print_json(_outcome_record(event))

        try:
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
        except KeyboardInterrupt:
            stack.close()
            _report_batch(ended, of=len(planned))
            raise
    _report_cleaned(outcomes)
    if plot is not None:
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
    from denoisecli.cleaning.denoiser import Denoiser

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


def _report_planned(job: Any, *, overwrite: bool, skip: bool, as_json: bool) -> None:
    """What a real run would do, as far as it depends on what is there already."""
    there = [path.exists() for path in (job.target, job.noise_target) if path is not None]
    status = "planned"
    if skip and all(there):
        status = "skipped"
    elif any(there) and not overwrite:
        status = "failed"
    if as_json:
        record = {"status": status, "source": str(job.source), "target": str(job.target)}
        console.print_json(record)
        return
    note = {"planned": "", "skipped": " (exists: skipped)", "failed": " (exists: would fail)"}
    console.result(f"{job.source} -> {job.target}{note[status]}")


def _report_result(result: Any) -> None:
    for warning in result.warnings:
        console.warn(f"{result.source}: {_without(result.source, warning)}")
    console.info(
        f"{result.target}: {result.seconds:.1f} s in {result.wall_seconds:.2f} s "
        f"({result.seconds / result.wall_seconds:.0f}x real time), "
        f"level {result.rms_in_dbfs:.1f} -> {result.rms_out_dbfs:.1f} dBFS"
    )


def _report_cleaned(outcomes: list[Any]) -> None:
    """Say how it went; raise if anything failed."""
    if len(outcomes) == 1 and outcomes[0].error is not None:
        raise outcomes[0].error
    if len(outcomes) > 1:
        _report_batch(outcomes, of=len(outcomes))
        failed = sum(outcome.error is not None for outcome in outcomes)
        if failed:
            raise DenoiseError(f"{failed} of {len(outcomes)} files failed")
    elif outcomes[0].result is not None:
        _report_result(outcomes[0].result)
    else:
        console.info(f"{outcomes[0].job.target} is there already: skipped")


def _report_batch(outcomes: list[Any], *, of: int) -> None:
    """A table of what was done, skipped and failed, and why; of so many files."""
    rows = []
    for outcome in outcomes:
        result, note, speed = outcome.result, "", ""
        if outcome.error is not None:
            note = _without(outcome.job.source, str(outcome.error))
        if result is not None:
            speed = f"{result.seconds / result.wall_seconds:.0f}x"
            levels = f"level {result.rms_in_dbfs:.1f} -> {result.rms_out_dbfs:.1f} dBFS"
            note = "; ".join((levels, *(_without(result.source, one) for one in result.warnings)))
        rows.append([str(outcome.job.source), outcome.status, note, speed])
    if rows:
        console.info_table(["file", "", "", "speed"], rows, texts=3)
    counts = Counter(outcome.status for outcome in outcomes)
    parts = [f"{counts[status]} {status}" for status in ("done", "skipped", "failed")]
    if len(outcomes) < of:
        parts.append(f"{of - len(outcomes)} left")
    seconds = sum(outcome.result.seconds for outcome in outcomes if outcome.result)
    console.info(f"{', '.join(parts)}; {seconds / 60:.1f} min of audio")


def _without(source: Path, message: str) -> str:
    """A message without the name that it begins with, to be put behind that."""
    return message.removeprefix(f"{source} ")


def _outcome_record(outcome: Any) -> dict[str, Any]:
    record = {"status": outcome.status, "source": str(outcome.job.source)}
    record |= {"target": str(outcome.job.target)}
    if outcome.error is not None:
        record["error"] = str(outcome.error)
    return record | (outcome.result.record() if outcome.result else {})
