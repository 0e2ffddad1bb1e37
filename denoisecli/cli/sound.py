"""The commands that look at sound and mix it: spectrogram, plot, mix."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from denoisecli.cli import console
from denoisecli.cli.options import (
    AudioFile,
    NoMatchLevel,
    Output,
    Overwrite,
    Seed,
)
from denoisecli.errors import UsageError


class Scale(StrEnum):
    """Scales of a stored spectrogram."""

    magnitude = "magnitude"
    power = "power"
    db = "db"
    mel = "mel"


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
    from denoisecli.audio.spectrogram import invert_file, spectrogram_file

    if invert:
        gain = invert_file(source, output, overwrite=overwrite)
        if gain < 1:
            console.warn(f"scaled by {gain:.3f} to stay within full scale")
        console.info(f"wrote {output}")
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
    console.info(f"wrote {output}: {frequency} frequencies x {timesteps} timesteps, {made.scale}")


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
    from denoisecli.audio.plot import plot_files

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
    console.info(f"wrote {output}")


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
    from denoisecli.datasets.mix import mix_files, ratio_from_snr

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
    console.info(f"wrote {output}: ratio {made.ratio:.3f}, SNR {made.snr_db:.1f} dB")
