"""Compose short pieces of music at random and synthesize them, as clean recordings for training.

    python examples/training-speech/make_music.py FOLDER [--pieces 400] [--seconds 6] [--seed 0]

It writes 0000.flac, 0001.flac, ... (44.1 kHz, stereo). It needs the package mido, FluidSynth and a
General MIDI sound font (on Debian: fluidsynth and fluid-soundfont-gm). The same seed gives the same
notes.
"""

import argparse
import subprocess
from pathlib import Path
from typing import NamedTuple

import mido
import numpy as np
import soundfile

SOUND_FONT = Path("/usr/share/sounds/sf2/FluidR3_GM.sf2")
SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10), (0, 2, 4, 7, 9))
PROGRAMS = (*range(96), *range(104, 112))
"""General MIDI programs of instruments, without sound effects."""

BASSES = range(32, 40)
DRUM_CHANNEL = 9
KICK, SNARE, HATS = 36, (37, 38, 39, 40), (42, 44, 46, 51, 54, 70)
TICKS = 480
"""MIDI ticks per beat."""


class Note(NamedTuple):
    """A note: its MIDI channel, start and length in beats, MIDI pitch and velocity."""

    channel: int
    start: float
    length: float
    pitch: int
    velocity: int


def compose(rng: np.random.Generator, beats: int) -> list[Note]:
    """Compose one to five parts over chords that change every two or four beats."""
    scale = SCALES[rng.integers(len(SCALES))]
    root = int(rng.integers(40, 52))
    bar = int(rng.choice([2, 4]))
    chords = rng.integers(len(scale), size=-(-beats // bar))

    def pitch(step: int) -> int:
        octave, degree = divmod(step, len(scale))
        return int(np.clip(root + 12 * octave + scale[degree], 24, 103))

    def loudness() -> int:
        return int(rng.integers(45, 120))

    pad, run, melody, bass, drums = rng.random(5) < (0.5, 0.5, 0.6, 0.5, 0.4)
    melody = melody or not (pad or run)
    notes = []
    for number, chord in enumerate(chords):
        start = number * bar
        tones = [int(chord) + 2 * third for third in range(int(rng.integers(3, 5)))]
        if pad:
            notes += [Note(0, start, bar * 0.95, pitch(tone + 7), loudness()) for tone in tones]
        if run:
            step = float(rng.choice([0.25, 0.5]))
            for place in np.arange(start, start + bar, step):
                tone = int(rng.choice(tones)) + 7 * int(rng.integers(1, 3))
                notes.append(Note(1, place, step * 1.2, pitch(tone), loudness()))
        if bass:
            step = float(rng.choice([0.5, 1, 2]))
            for place in np.arange(start, start + bar, step):
                tone = int(chord) + int(rng.choice([0, 0, 4]))
                notes.append(Note(3, place, step * 0.9, pitch(tone) - 12, loudness()))
    place, step = 0.0, int(rng.integers(10, 20))
    while melody and place < beats:
        length = float(rng.choice([0.25, 0.5, 0.5, 1, 1, 2]))
        step = int(np.clip(step + rng.integers(-3, 4), 5, 24))
        if rng.random() < 0.85:
            notes.append(Note(2, place, length * 0.95, pitch(step), loudness()))
        place += length
    if drums:
        hat = int(rng.choice(HATS))
        snare = int(rng.choice(SNARE))
        for sixteenth, chance in enumerate(np.tile(rng.random((4, 3)), (beats, 1))):
            for drum, probability in zip((KICK, snare, hat), chance, strict=True):
                if rng.random() < probability**2:
                    notes.append(Note(DRUM_CHANNEL, sixteenth / 4, 0.2, drum, loudness()))
    return notes


def write_midi(notes: list[Note], rng: np.random.Generator, tempo: float, path: Path) -> None:
    """Write notes as a MIDI file, with a random instrument for each channel."""
    track = mido.MidiTrack([mido.MetaMessage("set_tempo", tempo=mido.bpm2tempo(tempo))])
    for channel in range(4):
        program = int(rng.choice(BASSES if channel == 3 else PROGRAMS))
        track.append(mido.Message("program_change", channel=channel, program=program))
    events = []
    for note in notes:
        for kind, beat in (("note_on", note.start), ("note_off", note.start + note.length)):
            message = mido.Message(
                kind, channel=note.channel, note=note.pitch, velocity=note.velocity
            )
            events.append((round(beat * TICKS), message))
    now = 0
    for tick, message in sorted(events, key=lambda event: (event[0], event[1].type)):
        track.append(message.copy(time=tick - now))
        now = tick
    mido.MidiFile(ticks_per_beat=TICKS, tracks=[track]).save(path)


def main() -> None:
    """Compose and synthesize all pieces."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pieces", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sound-font", type=Path, default=SOUND_FONT)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    midi = options.folder / "piece.mid"
    for number in range(options.pieces):
        rng = np.random.default_rng([options.seed, number])
        tempo = float(rng.uniform(60, 170))
        notes = compose(rng, beats=round(options.seconds * tempo / 60))
        write_midi(notes, rng, tempo, midi)
        sound = options.folder / f"{number:04}.flac"
        words = ["-niq", "-g", "0.4", "-r", "44100", "-T", "flac", "-F", sound]
        words += [options.sound_font, midi]
        subprocess.run(["fluidsynth", *map(str, words)], check=True)
        audio, sample_rate = soundfile.read(sound, frames=round(options.seconds * 44100))
        soundfile.write(sound, audio, sample_rate)  # cut off the release of the last notes
    midi.unlink()


if __name__ == "__main__":
    main()
