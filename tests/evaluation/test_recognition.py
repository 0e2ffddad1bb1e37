import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from denoisecli.errors import AudioError, DenoiseError, UsageError
from denoisecli.evaluation.pairs import Pair
from denoisecli.evaluation.recognition import (
    Recognizer,
    normalize,
    read_transcripts,
    word_error_rate,
    word_errors,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello,  World!", "hello world"),
        ("Don\u2019t \u2018quote\u2019 'me'.", "don't quote me"),
        ("[music] (laughs) twenty-one \u2014 yes", "twenty one yes"),
        ("STRASSE Stra\u00dfe", "strasse strasse"),
        ("cafe\u0301 = caf\u00e9", "caf\u00e9 caf\u00e9"),
        (
            "\u0928\u092e\u0938\u094d\u0924\u0947 2 \uff12",
            "\u0928\u092e\u0938\u094d\u0924\u0947 2 2",
        ),
        (" ... '", ""),
    ],
)
def test_normalization(text, words):
    assert normalize(text) == words.split()


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a b c", "a b b c", 1),
        ("k i t t e n", "s i t t i n g", 3),
        ("a b c d", "b c d e", 2),
    ],
)
def test_word_errors(reference, hypothesis, errors):
    assert word_errors(reference.split(), hypothesis.split()) == errors
    assert word_errors(hypothesis.split(), reference.split()) == errors


def test_word_error_rate():
    assert word_error_rate(["a", "b"], ["a"]) == 50
    assert word_error_rate(["a"], ["b", "c", "d"]) == 300  # invented words
    assert math.isnan(word_error_rate([], ["a"]))


@pytest.fixture
def whisper(monkeypatch):
    """Replace faster-whisper; returns the calls of transcribe."""
    calls = []

    class WhisperModel:
        def __init__(self, model, **options):
            if model == "nothing":
                raise ValueError("Invalid model size")

        def transcribe(self, sound, **options):
            calls.append((sound.shape, sound.dtype, options))
            segments = iter([SimpleNamespace(text=" Hello,"), SimpleNamespace(text=" world.")])
            return segments, SimpleNamespace(language=options["language"] or "de")

    module = SimpleNamespace(WhisperModel=WhisperModel, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "faster_whisper", module)
    return calls


def test_transcribing(whisper, audio_file, speech):
    """At 16 kHz, mono, without randomness, in the language that is asked for or recognized."""
    path = audio_file("a.wav", np.stack([speech(1.0, 48000)] * 2), 48000)
    recognizer = Recognizer("tiny")
    recognizer.check()
    recognizer.load()
    assert recognizer.transcribe(path) == (["hello", "world"], "de")
    assert recognizer.transcribe(path, "fr")[1] == "fr"
    shape, dtype, options = whisper[0]
    assert (shape, dtype) == ((16000,), np.float32)
    assert options["temperature"] == 0
    fixed = Recognizer("tiny", "en")
    fixed.load()
    assert fixed.transcribe(path)[1] == "en"
    with pytest.raises(AudioError):
        (path.parent / "bad.wav").write_text("no sound")
        recognizer.transcribe(path.parent / "bad.wav")


def test_models_that_cannot_be_used(whisper, tmp_path, monkeypatch):
    with pytest.raises(DenoiseError, match="'nothing' can be neither loaded nor downloaded"):
        Recognizer("nothing").load()
    with pytest.raises(UsageError, match=r"has no model\.bin"):
        Recognizer(str(tmp_path)).check()
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(UsageError, match=r"pip install \"denoisecli\[asr\]\""):
        Recognizer("tiny").check()


def test_transcripts_beside_the_clean_recordings(tmp_path):
    (tmp_path / "a.txt").write_text("Hello, world!\n")
    pairs = [Pair(name, tmp_path / f"{name}.wav", tmp_path / "n.wav") for name in "ab"]
    assert read_transcripts(pairs, None) == {"a": ["hello", "world"]}


def test_transcripts_in_a_table(tmp_path):
    """By name of the pair, or of the clean recording, which several pairs may share."""
    table = tmp_path / "t.csv"
    table.write_text('text,name\n"Yes, sir.",v1\nNo,x_5dB\nof nothing\n')  # the last has no name
    pairs = [
        Pair(name, tmp_path / clean, tmp_path / "n.wav")
        for name, clean in (("x_0dB", "v1.wav"), ("x_5dB", "v1.wav"))
    ]
    assert read_transcripts(pairs, table) == {"x_0dB": ["yes", "sir"], "x_5dB": ["no"]}
    with pytest.raises(UsageError, match="no transcript of other"):
        read_transcripts([*pairs, Pair("other", tmp_path / "o.wav", tmp_path / "n.wav")], table)
    table.write_text("name,text\n1,one\nspeakers/é,two\n")
    pairs = [  # of a dataset, whose clean files have numbers
        Pair("1_2", tmp_path / "2.wav", tmp_path / "n.wav", sources=("1.flac",)),
        Pair("2_1", tmp_path / "1.wav", tmp_path / "n.wav", sources=("speakers/e\u0301.wav",)),
    ]
    assert read_transcripts(pairs, table) == {"1_2": ["one"], "2_1": ["two"]}
    table.write_text("name,transcript\na,b\n")
    with pytest.raises(UsageError, match="must have the headings name and text"):
        read_transcripts(pairs, table)
    with pytest.raises(UsageError, match="cannot read the transcripts"):
        read_transcripts(pairs, tmp_path / "none.csv")
