"""The commands for single sounds: spectrogram, plot, mix."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from denoisecli.audio.choices import Scale, Window
from denoisecli.cli import console, displays
from denoisecli.cli.options import NoMatchLevel, Output, Overwrite, Seed, refuse_given
from denoisecli.errors import UsageError

_transform = partial(typer.Option, rich_help_panel="Transform")
_part = partial(typer.Option, rich_help_panel="Part to draw")
_picture = partial(typer.Option, rich_help_panel="Picture")


def spectrogram(
    source: Annotated[
        Path, typer.Argument(help="Audio file; with --invert a spectrogram file (.npz).")
    ],
    output: Output,
    invert: Annotated[
        bool, typer.Option("--invert", help="Convert a spectrogram file back to audio.")
    ] = False,
    overwrite: Overwrite = False,
    scale: Annotated[
        Scale | None, _transform(help="Scale of the values (default: magnitude).")
    ] = None,
    n_fft: Annotated[
        int | None,
        _transform(
            help="Length of the window and the transform in samples, an even number (default: "
            "1024)."
        ),
    ] = None,
    hop_length: Annotated[
        int | None,
        _transform(max=2**24, help="Number of samples between successive frames (default: 256)."),
    ] = None,
    window: Annotated[
        Window | None,
        _transform(
            metavar="<window>", help=f"Analysis window: {', '.join(Window)} (default: hann)."
        ),
    ] = None,
    n_mels: Annotated[
        int | None, _transform(max=10_000, help="Number of bands of the mel scale (default: 80).")
    ] = None,
    sample_rate: Annotated[
        int | None,
        _transform(
            min=1,
            max=384_000,
            help="Sample rate to resample to first, in Hz (default: that of the file).",
        ),
    ] = None,
    phase: Annotated[
        bool | None,
        _transform(
            "--phase/--no-phase",
            help="Store the phase as well, which makes --invert exact, except for the scale mel "
            "(default: --phase).",
        ),
    ] = None,
) -> None:
    """Compute the spectrogram of an audio file, or invert one.

    A .npz file contains the matrix, the phase and the parameters; a .npy file contains only the
    matrix, and cannot be inverted. Channels are averaged first.

    Example: `denoise spectrogram talk.wav -o talk.npz --scale db`,
    and back: `denoise spectrogram talk.npz --invert -o talk.wav`
    """
    from denoisecli.audio.files import read_mono
    from denoisecli.audio.spectrogram import check_target, invert_file
    from denoisecli.audio.spectrogram import spectrogram as compute

    if invert:
        transform = {
            "--scale": scale,
            "--n-fft": n_fft,
            "--hop-length": hop_length,
            "--window": window,
            "--n-mels": n_mels,
            "--sample-rate": sample_rate,
            "--phase" if phase else "--no-phase": phase,
        }
        refuse_given(transform, "does not apply to --invert")
        gain = invert_file(source, output, overwrite=overwrite)
        if gain < 1:
            console.warn(f"scaled by {gain:.3f} to stay within full scale")
        console.info(f"wrote {output}")
        return
    scale = scale or Scale.MAGNITUDE
    if scale is not Scale.MEL:
        refuse_given({"--n-mels": n_mels}, "applies to --scale mel only")
    check_target(output, overwrite=overwrite)
    audio, rate = read_mono(source, sample_rate)
    result = compute(
        audio,
        rate,
        n_fft=1024 if n_fft is None else n_fft,
        hop_length=256 if hop_length is None else hop_length,
        window=(window or Window.HANN).value,
        scale=scale,
        n_mels=80 if n_mels is None else n_mels,
        phase=phase is not False,
    )
    result.save(output, overwrite=overwrite)
    frequencies, frames = result.matrix.shape
    console.info(f"wrote {output}: {frequencies} frequencies x {frames} frames, scale {scale}")


def plot(
    sources: Annotated[
        list[Path],
        typer.Argument(help="Audio files, spectrogram files (.npz), or folders of audio files."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Picture to write (.png, .svg or .pdf).")
    ],
    overwrite: Overwrite = False,
    start: Annotated[float, _part(min=0, help="Start in seconds, such as 90.")] = 0.0,
    duration: Annotated[
        float | None, _part(min=0, help="Length in seconds, such as 2.5 (default: to the end).")
    ] = None,
    max_frequency: Annotated[
        float | None,
        _part(min=0, help="Upper end of the frequency axis in Hz (default: half the sample rate)."),
    ] = None,
    waveform: Annotated[bool, _picture("--waveform", help="Draw the waveforms as well.")] = False,
    dynamic_range: Annotated[
        float, _picture(min=0, help="Range of the colours in dB below the highest level.")
    ] = 80.0,
    width: Annotated[float, _picture(help="Width in inches.")] = 10.0,
    dpi: Annotated[int, _picture(help="Pixels per inch.")] = 150,
) -> None:
    """Draw the spectrograms of up to 20 files one above the other.

    Channels are averaged. For a long recording, each column shows the highest level in its span of
    time.

    Example: `denoise plot noisy.wav cleaned.wav -o before-after.png --start 60 --duration 10`
    """
    from denoisecli.audio.plot import plot_files

    with displays.progress("drawing") as update:
        plot_files(
            sources,
            output,
            start=start,
            duration=duration,
            waveform=waveform,
            dynamic_range=dynamic_range,
            max_frequency=max_frequency,
            width=width,
            dpi=dpi,
            overwrite=overwrite,
            on_progress=update,
        )
    console.info(f"wrote {output}")


def mix(
    clean: Annotated[Path, typer.Argument(help="Clean recording.")],
    noise: Annotated[Path, typer.Argument(help="Noise recording.")],
    output: Output,
    ratio: Annotated[
        float | None,
        typer.Option(
            help="Share of the noise, from 0 to 1, such as 0.2. This or --snr is required."
        ),
    ] = None,
    snr: Annotated[
        float | None,
        typer.Option(help="Signal-to-noise ratio in dB, such as 5; instead of --ratio."),
    ] = None,
    seed: Seed = 0,
    no_match_level: NoMatchLevel = False,
    overwrite: Overwrite = False,
) -> None:
    """Mix noise into a clean recording: (1 - ratio) * clean + ratio * noise.

    The noise is looped or cut to the length of the clean recording and scaled to its level. The
    mix has one channel; channels are averaged.

    Example: `denoise mix speech.wav rain.wav --snr 5 -o noisy.wav`
    """
    from denoisecli.datasets.mix import mix_files

    mixed = mix_files(
        clean,
        noise,
        output,
        ratio=_ratio(ratio, snr, match_level=not no_match_level),
        seed=seed,
        match_level=not no_match_level,
        overwrite=overwrite,
    )
    if mixed.gain < 1:
        console.warn(f"scaled by {mixed.gain:.3f} so that the mix does not exceed full scale")
    console.info(f"wrote {output}: ratio {mixed.ratio:.3f}, SNR {mixed.snr_db:.1f} dB")


def _ratio(ratio: float | None, snr: float | None, *, match_level: bool) -> float:
    from denoisecli.datasets.mix import ratio_from_snr

    if ratio is not None and snr is None:
        return ratio
    if snr is None or ratio is not None:
        raise UsageError("exactly one of --ratio and --snr is required")
    if not match_level:
        raise UsageError("--snr needs matched levels; use --ratio with --no-match-level")
    return ratio_from_snr(snr)
