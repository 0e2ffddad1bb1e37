"""The commands about datasets: build-dataset, dataset."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from denoisecli.cli import console, displays
from denoisecli.cli.options import (
    NoMatchLevel,
    Overwrite,
    Ratio,
    Seed,
    Snr,
    load_tensorflow,
    number_or_range,
)
from denoisecli.errors import DatasetError, UsageError

Number = TypeVar("Number", int, float)

_SHOWN = 10  # files that were left out, and problems: the first ones


def build_dataset(
    clean: Annotated[Path, typer.Argument(help="Folder of clean recordings.", show_default=False)],
    noise: Annotated[Path, typer.Argument(help="Folder of noises.", show_default=False)],
    ratio: Ratio = None,
    snr: Snr = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Share of the files that train [default: 0.8], or of TRAIN,VALID,TEST.",
            show_default=False,
        ),
    ] = None,
    test_clean: Annotated[
        Path | None,
        typer.Option(help="Folder of clean recordings to test with.", show_default=False),
    ] = None,
    test_noise: Annotated[
        Path | None, typer.Option(help="Folder of noises to test with.", show_default=False)
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder that the sets are put into.")
    ] = Path("data"),
    train_name: Annotated[str, typer.Option(help="Folder of the training set.")] = "train",
    valid_name: Annotated[str, typer.Option(help="Folder of the validation set.")] = "valid",
    test_name: Annotated[str, typer.Option(help="Folder of the test set.")] = "test",
    group_by: Annotated[
        str,
        typer.Option(help="Keep together: file, folder (of a speaker), or a REGEX's first group."),
    ] = "file",
    sample_rate: Annotated[int, typer.Option(help="Hz.")] = 16000,
    segment: Annotated[
        float | None, typer.Option(help="Cut recordings to this many s.", show_default=False)
    ] = None,
    join: Annotated[
        float | None,
        typer.Option(
            help="Join short recordings of a folder to clips of up to this many s.",
            show_default=False,
        ),
    ] = None,
    pad: Annotated[
        bool, typer.Option("--pad", help="Fill clips up to --segment with silence.")
    ] = False,
    min_active: Annotated[
        float, typer.Option(help="Leave out clips with a smaller share of activity.")
    ] = 0.0,
    max_clipped: Annotated[
        float, typer.Option(help="Leave out recordings with more samples at full scale.")
    ] = 0.001,
    mixes_per_clip: Annotated[int, typer.Option(help="Each with another noise.")] = 1,
    noises: Annotated[str, typer.Option(help="Noises at a time, or a range as 1:2.")] = "1",
    noise_draw: Annotated[
        str, typer.Option(help="Draw noises evenly by folder, by file, or by length.")
    ] = "folder",
    clean_weight: Annotated[
        list[str] | None,
        typer.Option(help="FOLDER=3: as many times the mixes.", show_default=False),
    ] = None,
    noise_weight: Annotated[
        list[str] | None,
        typer.Option(help="FOLDER=2: draw as many times as often.", show_default=False),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(help="Of the noisy sound, dBFS, or a range as -45:-12.", show_default=False),
    ] = None,
    reverb: Annotated[
        Path | None, typer.Option(help="Folder of impulse responses of rooms.", show_default=False)
    ] = None,
    rooms: Annotated[int, typer.Option(help="Number of synthetic rooms.")] = 0,
    reverb_share: Annotated[float, typer.Option(help="Share of the mixes in a room.")] = 0.5,
    reverb_target: Annotated[
        str, typer.Option(help="Clean is dry, or has the early reflections of the room.")
    ] = "early",
    kind: Annotated[str, typer.Option(help="Store waveform or spectrogram pairs.")] = "waveform",
    seed: Seed = 0,
    no_match_level: NoMatchLevel = False,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Processes [default: one per core].", show_default=False),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Dask scheduler, tcp://HOST:PORT.", show_default=False)
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a build that was stopped.")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Mix two folders of recordings into a training and a test set.

    Example: `denoise build-dataset clean/ noise/ --snr=-5:20 --split 0.9`,
    of clips of 4 s: `... --segment 4 --join 4 --min-active 0.3`,
    after Ctrl-C: the same with `--resume`
    """
    from denoisecli.datasets.recipe import Recipe

    default_split = "0.8" if test_clean is None else "1"
    recipe = Recipe(
        ratio=number_or_range(ratio, "--ratio"),
        snr_db=number_or_range(snr, "--snr"),
        split=_shares(split or default_split),
        group_by=group_by,
        sample_rate=sample_rate,
        segment=segment,
        join=join,
        pad=pad,
        min_active=min_active,
        max_clipped=max_clipped,
        mixes_per_clip=mixes_per_clip,
        noises=_counts(noises),
        noise_draw=noise_draw,  # type: ignore[arg-type]  # Recipe checks it
        clean_weights=_weights(clean_weight, "--clean-weight", int),
        noise_weights=_weights(noise_weight, "--noise-weight", float),
        level_dbfs=number_or_range(level, "--level"),
        match_level=not no_match_level,
        rooms=rooms,
        reverb_share=reverb_share,
        reverb_target=reverb_target,  # type: ignore[arg-type]
        kind=kind,  # type: ignore[arg-type]
        seed=seed,
    )
    load_tensorflow("building a dataset")
    from denoisecli.datasets.inspection import describe
    from denoisecli.datasets.stored import build
    from denoisecli.datasets.workfolder import WORK

    with ExitStack() as stack:
        executor = None
        if cluster is not None:
            from denoisecli.system import pools

            executor = stack.enter_context(pools.cluster(cluster))
        display = stack.enter_context(displays.BuildDisplay())
        try:
            build(
                clean,
                noise,
                output,
                recipe,
                test_clean=test_clean,
                test_noise=test_noise,
                reverb=reverb,
                train_name=train_name,
                valid_name=valid_name,
                test_name=test_name,
                jobs=jobs or _cores(),
                executor=executor,
                resume=resume,
                overwrite=overwrite,
                progress=display.show,
            )
        except UsageError:
            raise
        except BaseException:
            if (output / WORK).exists():
                console.warn(f"{output / WORK} keeps what is done; --resume goes on with it")
            raise
    facts = describe(output)
    for name, part in facts["sets"].items():
        console.info(
            f"{name}: {part['mixes']} mixes, {part['hours']:.2f} h, from "
            f"{part['clean_files']} clean and {part['noise_files']} noise files "
            f"-> {output / part['folder']}"
        )
    if facts["skipped"]["files"]:
        first = facts["skipped"]["files"][0]
        console.warn(
            f"{_left_out(facts)}, e.g. {first['file']}: {first['reason']}; "
            f"`denoise dataset {output}` lists them all"
        )


def dataset(
    folder: Annotated[Path, typer.Argument(help="Folder of a dataset.", show_default=False)],
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw SNRs, levels and mean spectra here.", show_default=False),
    ] = None,
    export: Annotated[
        tuple[int, Path] | None,
        typer.Option(help="Write so many pairs to a folder, as wav.", show_default=False),
    ] = None,
    name: Annotated[str, typer.Option("--set", help="Which set to export from.")] = "train",
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every pair with the manifest.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Show what a dataset is, draw it, listen to it, check it.

    Example: `denoise dataset data/ --verify --plot data.png --export 5 listen/`
    """
    from denoisecli.datasets import inspection

    facts = inspection.describe(folder)
    if plot is not None or export is not None or verify:
        load_tensorflow("reading the pairs of a dataset")
    if export is not None:
        count, target = export
        rows = inspection.export(folder, count, target, name=name, overwrite=overwrite)
        console.info(f"wrote {len(rows)} pairs to {target}")
    if plot is not None:
        from denoisecli.datasets.inspection_plot import plot_dataset

        plot_dataset(folder, plot, overwrite=overwrite)
        console.info(f"wrote {plot}")
    problems: list[str] = []
    if verify:
        with displays.progress("verifying", unit="pairs") as tell:
            problems = list(inspection.verify(folder, progress=tell))
    if as_json:
        console.print_json({**facts, **({"problems": problems} if verify else {})})
    else:
        _show(facts)
        if verify and not problems:
            console.result(f"all {facts['mixes']} pairs are as the manifest says")
        for problem in problems[:_SHOWN]:
            console.warn(problem)
    if problems:
        found = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise DatasetError(f"{folder} is not as its manifest says: {found}")


def _show(facts: dict[str, Any]) -> None:
    """Print what a dataset is."""
    recipe = facts["recipe"]
    console.result(
        f"{facts['folder']}: {facts['mixes']} {facts['kind']} pairs, {facts['hours']:.2f} h at "
        f"{facts['sample_rate']} Hz, seed {recipe['seed']}, id {facts['id']}"
    )
    console.print_table(
        ["set", "mixes", "hours", "clean", "noises", "SNR dB", "level dBFS"],
        [
            [
                name,
                str(part["mixes"]),
                f"{part['hours']:.2f}",
                str(part["clean_files"]),
                str(part["noise_files"]),
                _range(part["snr_db"]),
                _range(part["level_dbfs"]),
            ]
            for name, part in facts["sets"].items()
        ],
    )
    for key, title in (("snr_db", "SNR in dB"), ("level_dbfs", "level in dBFS")):
        histogram = facts[f"{key}_histogram"]
        if histogram is not None:
            console.result(f"\n{title}")
            totals = [sum(counts) for counts in zip(*histogram["counts"].values(), strict=True)]
            for low, high, count in zip(
                histogram["edges"][:-1], histogram["edges"][1:], totals, strict=True
            ):
                bar = "█" * round(40 * count / max(totals))
                console.result(f"{low:>4} .. {high:>3} {count:>8}  {bar}")
    if facts["skipped"]["files"]:
        console.result(f"\nrecordings and clips: {_left_out(facts)}")
        for skip in facts["skipped"]["files"]:
            console.result(f"  {skip['role']} {skip['file']} {skip['reason']}")


def _left_out(facts: dict[str, Any]) -> str:
    skipped = facts["skipped"]
    reasons = ", ".join(f"{reason}: {count}" for reason, count in skipped["reasons"].items())
    return f"{len(skipped['files'])} left out ({reasons})"


def _range(summary: dict[str, float] | None) -> str:
    if summary is None:
        return "-"
    return f"{summary['min']:.1f} .. {summary['mean']:.1f} .. {summary['max']:.1f}"


def _shares(text: str) -> float | tuple[float, ...]:
    try:
        shares = tuple(float(share) for share in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"--split wants a share, or several as 0.8,0.1,0.1; not {text!r}"
        ) from error
    return shares if len(shares) > 1 else shares[0]


def _weights(texts: Sequence[str] | None, option: str, kind: type[Number]) -> dict[str, Number]:
    weights = {}
    for text in texts or ():
        name, _, number = text.rpartition("=")
        try:
            weights[name] = kind(number)
        except ValueError:
            name = ""
        if not name:
            raise UsageError(f"{option} wants FOLDER=NUMBER, found {text!r}")
    return weights


def _counts(text: str) -> int | tuple[int, int]:
    low, colon, high = text.partition(":")
    try:
        return (int(low), int(high)) if colon else int(low)
    except ValueError as error:
        raise UsageError(f"--noises wants a number or a range as 1:2, not {text!r}") from error


def _cores() -> int:
    from denoisecli.cleaning.engines import cpu_cores

    return cpu_cores()
