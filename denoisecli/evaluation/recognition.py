"""Word error rate: what a speech recognizer understands of a recording, against a transcript."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from denoisecli.audio.files import read_mono
from denoisecli.errors import DenoiseError, UsageError, join_names
from denoisecli.evaluation.metrics import DESCRIPTIONS, WER
from denoisecli.evaluation.pairs import Pair, normalize_name, read_table
from denoisecli.system.extras import require

if TYPE_CHECKING:
    from faster_whisper import WhisperModel

SAMPLE_RATE = DESCRIPTIONS[WER].sample_rate
"""Sample rate in Hz that Whisper listens at."""


def normalize(text: str) -> list[str]:
    """Split a transcript into words that can be compared.

    Letters become lower case in Unicode's form NFKC. An apostrophe stays inside a word ("don't");
    any other sign that is neither a letter, a mark, nor a digit separates words. What stands in
    brackets, such as "[music]", is left out. Numbers and spellings are not unified: "two" and "2"
    differ.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    text = re.sub(r"\[[^\]]*\]|\([^)]*\)", " ", text)
    kept = "".join(
        sign if sign == "'" or unicodedata.category(sign)[0] in "LMN" else " " for sign in text
    )
    return [word for part in kept.split() if (word := part.strip("'"))]


def word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Return the least number of words to replace, delete and insert (Levenshtein)."""
    row = list(range(len(hypothesis) + 1))
    for deleted, word in enumerate(reference, 1):
        diagonal, row[0] = row[0], deleted
        for column, other in enumerate(hypothesis, 1):
            cost = min(row[column] + 1, row[column - 1] + 1, diagonal + (word != other))
            diagonal, row[column] = row[column], cost
    return row[-1]


def word_error_rate(reference: Sequence[str], hypothesis: Sequence[str]) -> float:
    """Return the word errors per word of the reference in %; NaN if it has no words.

    It is above 100 % if the recognizer invents words.
    """
    if not reference:
        return float("nan")
    return 100 * word_errors(reference, hypothesis) / len(reference)


@dataclass
class Recognizer:
    """Whisper, run by faster-whisper on the CPU, decoded by beam search without randomness.

    Attributes:
        model: Name of a Whisper model ("tiny", "base.en", "large-v3"), which is downloaded when it
            is first used, or a folder of a model for CTranslate2, which needs no network.
        language: Language of the recordings, such as "en". By default it is recognized from each
            clean recording, and used for what was made of it.
    """

    model: str
    language: str | None = None
    _whisper: "WhisperModel | None" = field(default=None, init=False, repr=False)

    def check(self) -> None:
        """Raise UsageError if faster-whisper is not installed, or a folder holds no model."""
        require("asr", "faster_whisper", purpose="speech recognition")
        folder = Path(self.model)
        if folder.is_dir() and not (folder / "model.bin").is_file():
            raise UsageError(f"{folder} is not a model for faster-whisper: it has no model.bin")

    def load(self) -> None:
        """Load the model, which may download it.

        Raises:
            DenoiseError: It can be neither loaded nor downloaded.
        """
        from faster_whisper import WhisperModel

        try:
            self._whisper = WhisperModel(self.model, device="cpu", compute_type="float32")
        except Exception as error:  # of several libraries: HTTP, the hub, CTranslate2
            raise DenoiseError(
                f"the speech recognizer {self.model!r} can be neither loaded nor downloaded "
                f"({error}); give the folder of a model, or one of the names that faster-whisper "
                "knows"
            ) from error

    def transcribe(self, path: Path, language: str | None = None) -> tuple[list[str], str]:
        """Transcribe a recording.

        Args:
            path: The file; its channels are averaged.
            language: Its language; by default it is recognized.

        Returns:
            The normalized words, and the language.

        Raises:
            DenoiseError: The file cannot be read.
        """
        if self._whisper is None:
            raise RuntimeError("load() comes before transcribe()")
        sound, _ = read_mono(path, SAMPLE_RATE)
        segments, info = self._whisper.transcribe(
            sound,
            language=language or self.language,
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
        )
        return normalize(" ".join(segment.text for segment in segments)), info.language


def read_transcripts(pairs: Sequence[Pair], source: Path | None) -> dict[str, list[str]]:
    """Read the transcripts that belong to pairs.

    Args:
        pairs: The pairs.
        source: CSV file whose rows have a name and a text, under the headings "name" and "text" in
            any order. A name is that of a pair or of its clean recording, without suffix. None
            looks for NAME.txt beside the clean recording instead.

    Returns:
        Normalized words by name of the pair. Pairs without a transcript are left out if ``source``
        is None.

    Raises:
        UsageError: The CSV file cannot be read, lacks a heading, or lacks a recording.
    """
    if source is None:
        beside = {pair.name: pair.reference.with_suffix(".txt") for pair in pairs}
        return {
            name: normalize(path.read_text(encoding="utf-8", errors="replace"))
            for name, path in beside.items()
            if path.is_file()
        }
    rows = read_table(source, "name", "text", content="transcripts")
    texts = {normalize_name(row["name"]): normalize(row["text"]) for _, row in rows}
    found = {
        pair.name: texts[key]
        for pair in pairs
        for key in [next((name for name in _names(pair) if name in texts), None)]
        if key is not None
    }
    missing = sorted({pair.name for pair in pairs} - found.keys())
    if missing:
        raise UsageError(f"{source} has no transcript of {join_names(missing)}")
    return found


def _names(pair: Pair) -> list[str]:
    """Return the names that a transcript of a pair may have, the most specific one first."""
    # The clean files of a dataset have numbers for names; their sources have those of the user.
    sources = pair.sources or (pair.reference.name,)
    paths = [PurePosixPath(source) for source in sources] if len(sources) == 1 else []
    of_clean = [name for path in paths for name in (path.with_suffix("").as_posix(), path.stem)]
    return [pair.name, *map(normalize_name, of_clean)]
