"""The commands about models and specs: models, spec, export."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from denoisecli.cli import console
from denoisecli.cli.options import (
    Json,
    ModelClass,
    Overwrite,
    allow_code,
    load_keras,
    refuse_given,
)
from denoisecli.errors import DenoiseError, UsageError
from denoisecli.models.export import ExportFormat
from denoisecli.system.extras import require


@dataclass(frozen=True)
class ModelFacts:
    """A row of the table of `models`; None is what the training did not record."""

    name: str
    description: str
    sample_rate: int
    causal: bool
    parameters: int | None
    macs_per_second: float | None
    delay_seconds: float
    test_si_sdr_improvement_db: float | None
    audio_hours_of_last_run: float | None
    init_from: str | None
    mib: float
    folder: str


def models(
    folder: Annotated[
        Path | None, typer.Argument(help="Folder to search for trained models (default: runs).")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the bundled models and those in a folder.

    The columns are the sample rate, the number of weights, the multiply-accumulates per second of
    audio, the delay in a live stream, the improvement of the SI-SDR on the test set of the
    training, the hours of audio seen in the last training run (a model that started from the
    weights of another has seen more), and the size on disk.

    Example: `denoise models runs/`
    """
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    found = list(_find_models(folder or Path("runs")))
    if as_json:
        console.print_json(found)
        return

    def text(value: int | float | None, form: str) -> str:
        return "-" if value is None else form.format(value)

    columns = [
        *("model", "sample rate", "parameters", "MMAC/s"),
        *("live delay", "SI-SDR gain", "audio in last run", "size"),
    ]
    rows = [
        [
            facts.name,
            f"{facts.sample_rate} Hz",
            text(facts.parameters, "{:,}"),
            text(facts.macs_per_second and facts.macs_per_second / 1e6, "{:,.0f}"),
            f"{facts.delay_seconds:.3f} s",
            text(facts.test_si_sdr_improvement_db, "{:.1f} dB"),
            text(facts.audio_hours_of_last_run, "{:.0f} h"),
            f"{facts.mib:.1f} MiB",
        ]
        for facts in found
    ]
    console.print_table(columns, rows)


def _find_models(folder: Path) -> Iterator[ModelFacts]:
    """Yield the bundled models and those in a folder; warn about those that cannot be read."""
    from denoisecli.models.catalogue import find_model, local_models, model_names

    bundled = [(name, find_model(name).path) for name in model_names()]
    local = [(str(model.named_path), model.path) for model in local_models(folder)]
    for name, path in (*bundled, *local):
        try:
            yield _read_model(name, path)
        except DenoiseError as error:
            console.warn(f"{name}: {error}")


def _read_model(name: str, path: Path) -> ModelFacts:
    from denoisecli.cleaning.denoiser import Denoiser
    from denoisecli.models.folder import ModelFolder

    folder = ModelFolder(path)
    spec, metrics = folder.spec, folder.read_metrics()
    return ModelFacts(
        name=name,
        description=spec.description,
        sample_rate=spec.audio.sample_rate,
        causal=spec.causal,
        parameters=metrics.parameters,
        macs_per_second=metrics.macs_per_second,
        delay_seconds=Denoiser(path, threads=1).stream(spec.audio.sample_rate).delay,
        test_si_sdr_improvement_db=metrics.test.get("si_sdr_improvement"),
        audio_hours_of_last_run=metrics.audio_hours,
        init_from=metrics.init_from,
        mib=sum(file.stat().st_size for file in path.iterdir()) / 2**20,
        folder=str(path),
    )


def spec(
    name: Annotated[
        str | None,
        typer.Argument(help="Path of a spec file or a model folder, or name of a bundled spec."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of specs, for editors.")
    ] = False,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Print the spec with all its defaults.")
    ] = False,
    model_class: ModelClass = None,
    as_json: Json = False,
) -> None:
    """Check a spec and show its network: layers, parameters, arithmetic, receptive field.

    docs/spec.md describes the keys of a spec.

    Example: `denoise spec speech`
    """
    from denoisecli.spec.document import json_schema

    if schema:
        console.print_json(json_schema(), indent=2)
        return
    if name is None:
        raise UsageError("a spec is missing: give its path or name, or --schema")
    if not resolved:  # before the spec is read: nothing can be shown without it
        require("train", "keras", "onnx", purpose="showing the network of a spec")
    from denoisecli.models.catalogue import load_spec
    from denoisecli.spec.search_space import with_values

    loaded = load_spec(name)
    if model_class is not None:
        loaded = with_values(loaded, {"model": model_class})
    if resolved:
        console.print_json(loaded.model_dump(mode="json"), indent=2)
        return
    load_keras("showing the network of a spec")
    allow_code(model_class)
    from denoisecli.cleaning.masking import blocks_of_files
    from denoisecli.models.registry import build_model
    from denoisecli.models.summary import summarize_network

    summary = summarize_network(build_model(loaded))
    if as_json:
        console.print_json(summary)
        return
    columns = ["layer", "kind", "bands", "frames/s", "channels", "parameters", "MMAC/s"]
    rows = [
        [
            layer.name,
            layer.kind,
            *map(str, (layer.shape[0], f"{layer.shape[1]:g}", layer.shape[2])),
            f"{layer.parameters:,}",
            f"{layer.macs_per_second / 1e6:.1f}",
        ]
        for layer in summary.layers
    ]
    console.print_table(columns, rows, texts=2)
    console.info(
        f"{loaded.name}: {summary.parameters:,} parameters, "
        f"{summary.macs_per_second / 1e6:.0f} million multiply-accumulates per second of audio; "
        f"a sample depends on {_span(summary.past_seconds)} before it and "
        f"{_span(summary.future_seconds)} after it"
    )
    blocks = blocks_of_files(loaded, carries=summary.carries)
    seconds = blocks.before + blocks.length + blocks.after
    memory = summary.bytes_per_second * seconds + loaded.attention_bytes(seconds)
    context = "" if summary.carries else f" with {blocks.before:.3g} s on either side"
    console.info(
        f"files are cleaned in blocks of {blocks.length:.3g} s{context}, which take about "
        f"{memory / 2**20:,.0f} MiB of memory"
    )


def _span(seconds: float) -> str:
    return "everything" if math.isinf(seconds) else f"{seconds * 1000:.0f} ms"


def export(
    model: Annotated[
        str, typer.Argument(help="Path of a model folder, or name of a bundled model.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="File to write: .onnx or .tflite, or a folder for a SavedModel."
        ),
    ],
    format: Annotated[ExportFormat, typer.Option(help="Format to write.")] = ExportFormat.ONNX,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of STFT frames in the input of a LiteRT network (default: 64)."
        ),
    ] = None,
    model_class: ModelClass = None,
    overwrite: Overwrite = False,
) -> None:
    """Export the network of a model for other programs, and compare it with Keras.

    With --format onnx-stream or sherpa-onnx, the network takes a frame of the STFT and returns it
    cleaned, for live sound in other programs (docs/embed.md).

    In the other formats it takes the real and imaginary parts of an STFT, whose parameters
    `denoise spec MODEL --resolved` shows. It returns a mask: a real and an imaginary part for each
    tap (`output.past_taps` and `output.future_taps`), or one value if `output.mask` is `magnitude`.

    Example: `denoise export speech --format litert -o speech.tflite`
    """
    if format is not ExportFormat.LITERT:
        refuse_given({"--frames": frames}, "applies to --format litert only")
    load_keras("exporting a model")
    allow_code(model_class)
    with console.native_stderr_muted():
        from denoisecli.models.export.convert import export_model

        difference = export_model(
            model, output, format, frames=64 if frames is None else frames, overwrite=overwrite
        )
    files = [output] if output.is_file() else [path for path in output.rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in files) / 2**20
    console.info(
        f"wrote {output}: {size:.1f} MiB; largest difference from Keras {difference:.1g} "
        "on random input"
    )
