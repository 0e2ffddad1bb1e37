"""The commands about datasets: build-dataset, dataset."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from denoisecli.cli import console, displays
from denoisecli.cli.options import (
    Json,
    NoMatchLevel,
    Overwrite,
    Seed,
    load_tensorflow,
    number_or_range,
    parse_weights,
    refuse_given,
)
from denoisecli.datasets.choices import Kind, NoiseDraw, ReverbTarget
from denoisecli.errors import DatasetError, UsageError
from denoisecli.system.extras import require

if TYPE_CHECKING:
    from denoisecli.datasets.inspection import DatasetSummary, SetSummary, Spread

_SHOWN = 10  # number of problems that are printed

# The options of build-dataset, by the panel of the help that lists them.
_recordings = partial(typer.Option, rich_help_panel="Recordings")
_split = partial(typer.Option, rich_help_panel="Split")
_clips = partial(typer.Option, rich_help_panel="Clips")
_mixing = partial(typer.Option, rich_help_panel="Mixing")
_rooms = partial(typer.Option, rich_help_panel="Rooms")
_output = partial(typer.Option, rich_help_panel="Output")
_processes = partial(typer.Option, rich_help_panel="Processes")

CleanFolder = Annotated[Path, typer.Argument(help="Folder of clean recordings.")]
NoiseFolder = Annotated[
    Path, typer.Argument(help="Folder of noise recordings, or of noisy ones with --pairs.")
]

Pairs = Annotated[
    bool,
    _recordings(
        "--pairs",
        help="The second folder holds noisy recordings, each with the name of its clean one; "
        "nothing is mixed.",
    ),
]
TestClean = Annotated[Path | None, _recordings(help="Folder of clean recordings for the test set.")]
TestNoise = Annotated[Path | None, _recordings(help="Folder of noise recordings for the test set.")]
ValidClean = Annotated[
    Path | None, _recordings(help="Folder of clean recordings for the validation set.")
]
ValidNoise = Annotated[
    Path | None, _recordings(help="Folder of noise recordings for the validation set.")
]
MaxClipped = Annotated[
    float,
    _recordings(
        min=0,
        max=1,
        help="Leave out recordings with more than this share of samples at full scale.",
    ),
]
CleanWeight = Annotated[
    list[str] | None,
    _recordings(
        metavar="FOLDER=NUMBER",
        help="Weight of the clean recordings in a folder, a whole number: FOLDER=3 makes three "
        "times as many mixtures, and FOLDER=0 none. A pattern, such as '*_take?.wav', works too.",
    ),
]
NoiseWeight = Annotated[
    list[str] | None,
    _recordings(
        metavar="FOLDER=NUMBER",
        help="Weight of the noises in a folder: FOLDER=0.5 draws them half as often, and FOLDER=0 "
        "never.",
    ),
]
SampleRate = Annotated[
    int, _recordings(min=1000, max=384_000, help="Sample rate of the dataset in Hz.")
]

Split = Annotated[
    str | None,
    _split(
        help="Share of the recordings for training (default: 0.8), or the shares "
        "TRAIN,VALID,TEST, such as 0.8,0.1,0.1."
    ),
]
ValidShare = Annotated[
    float | None,
    _split(
        help="Share of the training set that is held out for validation, 0 for none (default: 0.05 "
        "if there are enough recordings)."
    ),
]
GroupBy = Annotated[
    str,
    _split(
        help="Grouping of recordings, to keep each group in one set: file, folder (of a speaker), "
        "or a regular expression whose first group matches the speaker."
    ),
]
GroupNoiseBy = Annotated[
    str | None, _split(help="Grouping of noise recordings (default: that of --group-by).")
]

Segment = Annotated[
    float | None,
    _clips(
        help="Length in seconds of the clips that recordings are cut into (default: only those "
        "longer than 10 s are cut)."
    ),
]
Join = Annotated[
    float | None,
    _clips(help="Join short recordings of a folder into clips of up to this length in seconds."),
]
Pad = Annotated[bool, _clips("--pad", help="Pad clips with silence to the length of --segment.")]
MinActive = Annotated[
    float,
    _clips(
        min=0,
        max=1,
        help="Leave out clips of which less than this share is active, such as 0.3: frames within "
        "25 dB of the level of the recording.",
    ),
]

Ratio = Annotated[
    str | None,
    _mixing(
        help="Share of the noise, from 0 to 1, or a range such as 0.05:0.5. This or --snr is "
        "required, except with --pairs."
    ),
]
Snr = Annotated[
    str | None,
    _mixing(help="Signal-to-noise ratio in dB, or a range such as -5:20; instead of --ratio."),
]
MixturesPerClip = Annotated[
    int, _mixing(min=1, help="Number of mixtures of each clip, each with a different noise.")
]
Noises = Annotated[str, _mixing(help="Number of noises in a mixture, or a range such as 1:2.")]
DrawNoise = Annotated[
    NoiseDraw,
    _mixing(help="Draw noises evenly over folders, over files, or in proportion to their length."),
]
Level = Annotated[
    str | None,
    _mixing(
        help="RMS level of the noisy sound in dBFS, or a range such as -45:-12 (default: that "
        "which results)."
    ),
]
Reverb = Annotated[Path | None, _rooms(help="Folder of impulse responses of rooms.")]
Rooms = Annotated[int, _rooms(min=0, help="Number of synthetic rooms.")]
ReverbShare = Annotated[
    float, _rooms(min=0, max=1, help="Share of the mixtures with reverberation.")
]
Target = Annotated[
    ReverbTarget,
    _rooms(help="What the clean part keeps of the room: nothing, or its early reflections."),
]

OutputFolder = Annotated[
    Path, _output("--output", "-o", help="Folder for dataset.json and the sets.")
]
TrainName = Annotated[str, _output(help="Name of the training set's folder.")]
ValidName = Annotated[str, _output(help="Name of the validation set's folder.")]
TestName = Annotated[str, _output(help="Name of the test set's folder.")]
StoredKind = Annotated[Kind, _output(help="Pairs to store; training needs waveforms.")]

Jobs = Annotated[
    int | None, _processes(min=1, help="Number of processes (default: one per CPU core).")
]
Cluster = Annotated[
    str | None,
    _processes(
        metavar="ADDRESS",
        help="Address of a Dask scheduler whose workers do the work, such as tcp://HOST:PORT.",
    ),
]
Resume = Annotated[bool, _processes("--resume", help="Continue an interrupted build.")]


def build_dataset(
    clean: CleanFolder,
    noise: NoiseFolder,
    pairs: Pairs = False,
    test_clean: TestClean = None,
    test_noise: TestNoise = None,
    valid_clean: ValidClean = None,
    valid_noise: ValidNoise = None,
    max_clipped: MaxClipped = 0.001,
    clean_weight: CleanWeight = None,
    noise_weight: NoiseWeight = None,
    sample_rate: SampleRate = 16000,
    split: Split = None,
    valid_share: ValidShare = None,
    group_by: GroupBy = "file",
    group_noise_by: GroupNoiseBy = None,
    segment: Segment = None,
    join: Join = None,
    pad: Pad = False,
    min_active: MinActive = 0.0,
    ratio: Ratio = None,
    snr: Snr = None,
    mixtures_per_clip: MixturesPerClip = 1,
    noises: Noises = "1",
    noise_draw: DrawNoise = NoiseDraw.FOLDER,
    level: Level = None,
    no_match_level: NoMatchLevel = False,
    seed: Seed = 0,
    reverb: Reverb = None,
    rooms: Rooms = 0,
    reverb_share: ReverbShare = 0.5,
    reverb_target: Target = ReverbTarget.EARLY,
    output: OutputFolder = Path("data"),
    train_name: TrainName = "train",
    valid_name: ValidName = "valid",
    test_name: TestName = "test",
    kind: StoredKind = Kind.WAVEFORM,
    overwrite: Overwrite = False,
    jobs: Jobs = None,
    cluster: Cluster = None,
    resume: Resume = False,
) -> None:
    """Build training and test sets of mixtures from a clean and a noise folder.

    Example: `denoise build-dataset clean/ noise/ --snr=-5:20 --split 0.9`,
    clips of 4 s: `... --segment 4 --join 4 --min-active 0.3`,
    after an interruption: the same command with `--resume`
    """
    require("train", "tensorflow", "google_crc32c", purpose="building datasets")
    from denoisecli.datasets.building import build
    from denoisecli.datasets.recipe import Recipe
    from denoisecli.datasets.workfolder import WORK
    from denoisecli.system import pools

    default_split = "0.8" if test_clean is None else "1"
    recipe = Recipe(
        pairs=pairs,
        ratio=number_or_range(ratio, "--ratio", float),
        snr_db=number_or_range(snr, "--snr", float),
        split=_shares(split or default_split),
        valid_share=valid_share,
        group_by=group_by,
        group_noise_by=group_noise_by,
        sample_rate=sample_rate,
        segment=segment,
        join=join,
        pad=pad,
        min_active=min_active,
        max_clipped=max_clipped,
        mixtures_per_clip=mixtures_per_clip,
        noises=number_or_range(noises, "--noises", int),
        noise_draw=noise_draw,
        clean_weights=parse_weights(clean_weight, "--clean-weight", int),
        noise_weights=parse_weights(noise_weight, "--noise-weight", float),
        level_dbfs=number_or_range(level, "--level", float),
        match_level=not no_match_level,
        rooms=rooms,
        reverb_share=reverb_share,
        reverb_target=reverb_target,
        kind=kind,
        seed=seed,
    )
    load_tensorflow("building datasets")  # now, because a wrong option is reported sooner
    with (
        pools.cluster(cluster) if cluster is not None else nullcontext() as executor,
        displays.BuildDisplay() as display,
    ):
        try:
            build(
                clean,
                noise,
                output,
                recipe,
                test_clean=test_clean,
                test_noise=test_noise,
                valid_clean=valid_clean,
                valid_noise=valid_noise,
                reverb=reverb,
                train_name=train_name,
                valid_name=valid_name,
                test_name=test_name,
                jobs=jobs or pools.cpu_cores(),
                executor=executor,
                resume=resume,
                overwrite=overwrite,
                on_progress=display.show,
            )
        except UsageError:
            raise
        except BaseException:
            if (output / WORK).exists():
                console.warn(f"{output / WORK} keeps the finished part; continue with --resume")
            raise
    _report_build(output)


def _report_build(output: Path) -> None:
    from denoisecli.datasets.inspection import summarize
    from denoisecli.evaluation.formatting import count

    summary = summarize(output)
    for name, part in summary.sets.items():
        console.info(
            f"{name}: {count(part.mixtures, 'mixture')}, {part.hours:.2f} h, from "
            f"{part.clean_files} clean and {_used(part)} noise files -> {output / part.folder}"
        )
    for note in summary.notes:
        console.warn(note)
    if summary.skipped.files:
        first = summary.skipped.files[0]
        console.warn(
            f"{summary.skipped}, for example {first.file}: {first.reason}; "
            f"`denoise dataset {output}` lists all"
        )


def dataset(
    folder: Annotated[Path, typer.Argument(help="Folder of a dataset.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every pair with the manifest.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Picture of the SNRs, levels and mean spectra to write, such as data.png."
        ),
    ] = None,
    export: Annotated[
        tuple[int, Path] | None,
        typer.Option(
            metavar="COUNT FOLDER", help="Write this number of pairs to a folder as WAV files."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--set", help="Set to export pairs from (default: train).")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show, verify, draw or export a dataset.

    Example: `denoise dataset data/ --verify --plot data.png --export 5 listen/`
    """
    from denoisecli.datasets import inspection
    from denoisecli.evaluation import formatting

    if export is None:
        refuse_given({"--set": name}, "applies to --export only")
    if plot is not None or export is not None or verify:
        load_tensorflow("reading the pairs of a dataset")
    summary = inspection.summarize(folder)
    if export is not None:
        count, target = export
        rows = inspection.export(folder, count, target, name=name or "train", overwrite=overwrite)
        console.info(f"wrote {len(rows)} pairs to {target}")
    if plot is not None:
        from denoisecli.datasets.inspection_plot import plot_dataset

        plot_dataset(folder, plot, overwrite=overwrite)
        console.info(f"wrote {plot}")
    problems: list[str] = []
    if verify:
        with displays.progress("verifying", unit="pairs") as update:
            problems = list(inspection.verify(folder, on_progress=update))
    if as_json:
        document = summary.model_dump(mode="json")
        console.print_json({**document, "problems": problems} if verify else document)
    else:
        _show(summary)
        if verify and not problems:
            console.result(
                f"all {formatting.count(summary.mixtures, 'pair')} agree with the manifest"
            )
        for problem in problems[:_SHOWN]:
            console.warn(problem)
    if problems:
        raise DatasetError(
            f"{folder} does not agree with its manifest: "
            f"{formatting.count(len(problems), 'problem')}"
        )


def _show(summary: "DatasetSummary") -> None:
    console.result(
        f"{summary.folder}: {summary.mixtures} {summary.kind} pairs, {summary.hours:.2f} h at "
        f"{summary.sample_rate} Hz, seed {summary.recipe.seed}, id {summary.id}"
    )
    console.print_table(
        [
            "set",
            "mixtures",
            "hours",
            "clean files",
            "noise files",
            "SNR in dB: min .. mean .. max",
            "level in dBFS: min .. mean .. max",
        ],
        [
            [
                name,
                str(part.mixtures),
                f"{part.hours:.2f}",
                str(part.clean_files),
                _used(part),
                _range(part.snr_db),
                _range(part.level_dbfs),
            ]
            for name, part in summary.sets.items()
        ],
    )
    for histogram, title in (
        (summary.snr_db_histogram, "SNR in dB"),
        (summary.level_dbfs_histogram, "level in dBFS"),
    ):
        if histogram is not None:
            console.result(f"\n{title}")
            totals = [sum(counts) for counts in zip(*histogram.counts.values(), strict=True)]
            bins = zip(histogram.edges[:-1], histogram.edges[1:], totals, strict=True)
            for low, high, count in bins:
                bar = "█" * round(40 * count / max(totals))
                console.result(f"{low:>4} .. {high:>3} {count:>8}  {bar}")
    for note in summary.notes:
        console.result(f"\nnote: {note}")
    if summary.skipped.files:
        console.result(f"\nrecordings and clips: {summary.skipped}")
        for skip in summary.skipped.files:
            console.result(f"  {skip.role} {skip.file} {skip.reason}")


def _used(part: "SetSummary") -> str:
    """Return the number of noises in the mixtures, and their total if there are more."""
    used, count = part.noises_used, part.noise_files
    return str(count) if used == count else f"{used} of {count}"


def _range(spread: "Spread | None") -> str:
    if spread is None:
        return "-"
    return f"{spread.min:.1f} .. {spread.mean:.1f} .. {spread.max:.1f}"


def _shares(text: str) -> float | tuple[float, ...]:
    try:
        shares = tuple(float(share) for share in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--split takes a share, or several such as 0.8,0.1,0.1, but was given {text!r}"
        ) from error
    return shares if len(shares) > 1 else shares[0]
