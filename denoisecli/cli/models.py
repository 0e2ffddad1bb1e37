"""The commands about trained models: models, export."""

from pathlib import Path
from typing import Annotated, Any

import typer

from denoisecli.cli import console
from denoisecli.cli.options import Output, Overwrite, load_tensorflow
from denoisecli.errors import DenoiseError, UsageError


def models(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Where local models are; by default runs.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the bundled models and those in a folder, with their figures.

    Example: `denoise models runs/`
    """
    from denoisecli.models.catalogue import find_model, local_models, model_names

    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder} is no folder; models takes one that trained models are in")
    found = []
    bundled = [(name, find_model(name)) for name in model_names()]
    local = [
        (str(model.path.parent if model.path.name == "model" else model.path), model)
        for model in local_models(folder or Path("runs"))
    ]
    for name, model in (*bundled, *local):
        try:
            found.append(_facts(name, model.path))
        except DenoiseError as error:  # one damaged model does not hide the others
            console.warn(f"{name}: {error}")
    if as_json:
        console.print_json(found)
        return

    def text(one: dict[str, Any], key: str, form: str, unit: float = 1) -> str:
        return "-" if one[key] is None else form.format(one[key] / unit)

    rows = [
        [
            str(one["name"]),
            text(one, "sample_rate", "{:.0f} Hz"),
            text(one, "parameters", "{:,.0f}"),
            text(one, "macs_per_second", "{:,.0f}", 1e6),
            text(one, "delay_seconds", "{:.3f} s"),
            text(one, "test_si_sdr_improvement_db", "{:.1f} dB"),
            text(one, "hours_of_audio_trained", "{:.0f} h"),
            text(one, "mib", "{:.1f} MiB"),
        ]
        for one in found
    ]
    columns = ["rate", "parameters", "MMAC/s", "live delay", "SI-SDR gain", "heard", "size"]
    console.print_table(["model", *columns], rows)


def _facts(name: str, path: Path) -> dict[str, Any]:
    """Return what is known of a model; None is what its training did not record."""
    from denoisecli.cleaning.denoiser import Denoiser
    from denoisecli.models.folder import ModelFolder

    folder = ModelFolder(path)
    spec, metrics = folder.spec, folder.read_metrics()
    return {
        "name": name,
        "description": spec.description,
        "sample_rate": spec.audio.sample_rate,
        "causal": spec.causal,
        "parameters": metrics.parameters,
        "macs_per_second": metrics.macs_per_second,
        "delay_seconds": Denoiser(path, threads=1).stream(spec.audio.sample_rate).delay,
        "hours_of_audio_trained": metrics.audio_hours,
        "test_si_sdr_improvement_db": metrics.test.get("si_sdr_improvement"),
        "mib": sum(file.stat().st_size for file in path.iterdir()) / 2**20,
        "folder": str(path),
    }


def export(
    model: Annotated[
        str, typer.Argument(help="A model folder or a bundled name.", show_default=False)
    ],
    output: Output,
    format: Annotated[str, typer.Option(help="onnx, litert or saved_model.")] = "onnx",
    frames: Annotated[int, typer.Option(min=1, help="Frames that a LiteRT model takes.")] = 64,
    overwrite: Overwrite = False,
) -> None:
    """Write a trained network for other programs, and compare it with Keras.

    It takes real and imaginary parts of an STFT and gives a mask, real and imaginary parts again,
    or several for the frames around (`output.past_taps`, `future_taps`); `denoise spec MODEL
    --resolved` says of which STFT.

    Example: `denoise export speech --format litert -o speech.tflite`
    """
    load_tensorflow("exporting a model")
    with console.native_stderr_muted():
        from denoisecli.models.export.convert import export_model

        difference = export_model(model, output, format, frames=frames, overwrite=overwrite)
    files = [output] if output.is_file() else [path for path in output.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 2**20
    console.info(
        f"wrote {output}: {size:.1f} MiB; largest difference from Keras {difference:.1g} "
        "on random input"
    )
