"""The commands that take sound: clean, spectrogram, plot, mix."""

import sys
from collections import Counter
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from denoisecli import console
from denoisecli.cli_options import (
    AudioFile,
    NoMatchLevel,
    Output,
    Overwrite,
    Seed,
)
from denoisecli.errors import DenoiseError, UsageError


class Scale(StrEnum):
    """Scales of a stored spectrogram."""

    magnitude = "magnitude"
    power = "power"
    db = "db"
    mel = "mel"


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
    from denoisecli.models import find_model
    from denoisecli.pipe import RawFormat
    from denoisecli.recordings import FileOptions

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

    from denoisecli.plan import plan

    planned = plan(sources, output, suffix=suffix, noise_output=keep_noise)
    if plot is not None:
        from denoisecli.plot import check_target, plot_files

        if len(planned) > 1:
            raise UsageError(f"--plot draws one recording, but there are {len(planned)}")
        check_target(plot, overwrite=overwrite)  # before the work, not behind it
    if dry_run:
        for job in planned:
            _report_planned(job, overwrite=overwrite, skip=skip_existing, as_json=as_json)
        return

    from denoisecli import batch

    with ExitStack() as stack:
        executor = None if cluster is None else stack.enter_context(batch.cluster(cluster))
        display = stack.enter_context(console.CleaningDisplay(len(planned)))

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
    console.say(
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
        console.say(f"{outcomes[0].job.target} is there already: skipped")


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
        console.say_table(["file", "", "", "speed"], rows, texts=3)
    counts = Counter(outcome.status for outcome in outcomes)
    parts = [f"{counts[status]} {status}" for status in ("done", "skipped", "failed")]
    if len(outcomes) < of:
        parts.append(f"{of - len(outcomes)} left")
    seconds = sum(outcome.result.seconds for outcome in outcomes if outcome.result)
    console.say(f"{', '.join(parts)}; {seconds / 60:.1f} min of audio")


def _without(source: Path, message: str) -> str:
    """A message without the name that it begins with, to be put behind that."""
    return message.removeprefix(f"{source} ")


def _outcome_record(outcome: Any) -> dict[str, Any]:
    record = {"status": outcome.status, "source": str(outcome.job.source)}
    record |= {"target": str(outcome.job.target)}
    if outcome.error is not None:
        record["error"] = str(outcome.error)
    return record | (outcome.result.record() if outcome.result else {})


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
    phase: Annotated[
        bool, typer.Option(help="Keep the phase: --invert is exact then, but for mel.")
    ] = True,
    invert: Annotated[
        bool, typer.Option("--invert", help="The other way: .npz to an audio file.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Turn audio into a spectrogram (.npz, or .npy for the bare matrix), or back.

    Of a recording of several channels, it is the spectrogram of their mean.

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

    Of a recording of several channels, their mean is drawn.

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


def mix(
    clean: Annotated[Path, typer.Argument(help="The clean recording.", show_default=False)],
    noise: Annotated[Path, typer.Argument(help="The noise.", show_default=False)],
    output: Output,
    ratio: Annotated[
        float | None, typer.Option(help="Share of the noise, 0..1.", show_default=False)
    ] = None,
    snr: Annotated[
        float | None, typer.Option(help="The same as an SNR in dB.", show_default=False)
    ] = None,
    seed: Seed = 0,
    no_match_level: NoMatchLevel = False,
    overwrite: Overwrite = False,
) -> None:
    """Mix noise into a clean recording, (1 - ratio) * clean + ratio * noise.

    The mix has one channel: of recordings that have more, their mean is taken.

    Example: `denoise mix speech.wav rain.wav --snr 5 -o noisy.wav`
    """
    from denoisecli.mix import mix_files, ratio_from_snr

    if (ratio is None) == (snr is None):
        raise UsageError("give either --ratio or --snr")
    if snr is not None and no_match_level:
        raise UsageError("an SNR can only be had when levels are matched; give --ratio")
    share = ratio if snr is None else ratio_from_snr(snr)
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
