"""Clean generated recordings of all kinds, and count what goes wrong.

    python -m benchmarks.clean_inputs [--count 10000] [--first 0]

Every number from FIRST on stands for a recording: a format, a sample rate, channels, a length, a
damage or none, and options of `denoise clean`. The network changes nothing, so that the output can
be compared with the input. Counted are

- tracebacks: exceptions that are no sentence;
- silent losses: exit code 0 and no warning, but another length, sample rate, number of channels,
  channel mask, permissions or sound than asked for;
- wrong exit codes: 0 for a damaged recording that was not cleaned, another one for a whole one, or
  an error without a message;
- files left behind: temporary files, or an output in spite of an error.

The numbers of the recordings that went wrong are printed; `--first NUMBER --count 1` repeats one.
A run of 10,000 takes about ten minutes on a core.
"""

import argparse
import io
import json
import stat
import struct
import sys
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import soundfile
from typer.testing import CliRunner

from denoisecli.audio.reading import reader
from denoisecli.cli.app import app
from denoisecli.types import AudioChannels

LOSSLESS = {
    ".wav": ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"),
    ".rf64": ("PCM_16", "FLOAT"),
    ".w64": ("PCM_16", "PCM_24"),
    ".aiff": ("PCM_S8", "PCM_16", "PCM_24", "FLOAT"),
    ".au": ("PCM_16", "PCM_24", "FLOAT"),
    ".caf": ("PCM_16", "FLOAT"),
    ".flac": ("PCM_S8", "PCM_16", "PCM_24"),
}
LOSSY = {
    ".wav": ("ULAW", "ALAW", "MS_ADPCM", "IMA_ADPCM"),
    ".ogg": ("VORBIS",),
    ".opus": ("OPUS",),
    ".mp3": ("MPEG_LAYER_III",),
}
MEDIA = {".m4a": "aac", ".mka": "flac", ".mov": "pcm_s24le", ".mp4": "alac", ".webm": "libopus"}
RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000, 12347)
LENGTHS = (1, 2, 17, 255, 1000, 4096, 9999, 20_000)
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
DAMAGES = ("cut", "flip header", "flip sound", "no size", "stale size", "junk", "text", "empty")
WITH_SIZE = (".wav", ".aiff", ".au")


@dataclass
class Case:
    """A recording and a call of `denoise clean`.

    Attributes:
        suffix: Suffix of the recording.
        subtype: Its sample format, or FFmpeg's name of its codec.
        sample_rate: Its sample rate in Hz.
        sound: Its samples.
        damage: What was done to the file; empty if nothing.
        options: Options of the call.
        target: Suffix of the output.
        from_pipe: It comes from stdin.
        to_pipe: It goes to stdout.
        in_place: The output replaces it.
        mode: Permissions of the file.
        mask: Channel mask of a WAV; 0 for none.
    """

    suffix: str
    subtype: str
    sample_rate: int
    sound: AudioChannels
    damage: str = ""
    options: list[str] = field(default_factory=list)
    target: str = ".wav"
    from_pipe: bool = False
    to_pipe: bool = False
    in_place: bool = False
    mode: int = 0o644
    mask: int = 0

    def __str__(self) -> str:
        channels, length = self.sound.shape
        text = f"{self.suffix} {self.subtype} {self.sample_rate} Hz {channels} ch {length} samples"
        pipes = " from pipe" * self.from_pipe + " to pipe" * self.to_pipe
        place = " in place" if self.in_place else f" -> {self.target}"
        return f"{text} [{self.damage or 'whole'}]{pipes}{place} {' '.join(self.options)}"

    @property
    def lossless(self) -> bool:
        """Whether the samples of the recording are those of the sound, but for rounding."""
        return self.subtype in LOSSLESS.get(self.suffix, ()) or self.subtype in (
            *("flac", "alac"),
            "pcm_s24le",
        )


def draw_sound(rng: np.random.Generator, channels: int, length: int) -> AudioChannels:
    """Return noise, silence, or noise that is difficult in some way."""
    kind = rng.choice(["noise", "quiet", "loud", "silence", "offset", "impulse", "nan"], p=PARTS)
    sound = 0.1 * rng.standard_normal((channels, length))
    if kind == "quiet":
        sound *= 1e-3
    elif kind == "loud":
        sound = np.clip(sound * 12, -1, 1)
    elif kind == "silence":
        sound[:] = 0
    elif kind == "offset":
        sound += 0.3
    elif kind == "impulse":
        sound[:] = 0
        sound[:, length // 2] = 0.9
    elif kind == "nan":
        sound[0, length // 3] = np.nan
    return sound.astype(np.float32)


PARTS = (0.6, 0.08, 0.08, 0.06, 0.06, 0.06, 0.06)


def draw(number: int) -> Case:
    """Return the case of a number."""
    rng = np.random.default_rng(number)
    kinds = [
        (suffix, name) for table in (LOSSLESS, LOSSY) for suffix in table for name in table[suffix]
    ]
    kinds += list(MEDIA.items())
    suffix, subtype = kinds[rng.integers(len(kinds))]
    channels = int(rng.choice([1, 2, 3, 4, 6, 8], p=[0.4, 0.35, 0.05, 0.05, 0.1, 0.05]))
    if suffix in (".mp3", *MEDIA) or subtype in LOSSY[".wav"]:
        channels = min(channels, 2)
    # FFmpeg decodes Opus at 48 kHz, whatever the rate before.
    rates = {".opus": OPUS_RATES, ".webm": (48000,), ".mp3": MP3_RATES}.get(suffix, RATES)
    case = Case(
        suffix,
        subtype,
        int(rng.choice(rates)),
        draw_sound(rng, channels, int(rng.choice(LENGTHS))),
        mode=int(rng.choice([0o600, 0o640, 0o644])),
    )
    if not np.isfinite(case.sound).all() and case.subtype not in ("FLOAT", "DOUBLE"):
        case.sound = np.nan_to_num(case.sound)
    if suffix == ".wav" and channels > 2 and rng.random() < 0.5:
        case.mask = {3: 0x7, 4: 0x107, 6: 0x60F, 8: 0x63F}[channels]
    if rng.random() < 0.4:
        case.damage = str(rng.choice(DAMAGES))
    if case.damage in ("no size", "stale size") and (
        suffix not in WITH_SIZE or subtype not in LOSSLESS[suffix] or case.mask
    ):
        case.damage = "cut"
    draw_call(case, rng)
    return case


def draw_call(case: Case, rng: np.random.Generator) -> None:
    """Add the options of a call to a case."""
    outputs = (*LOSSLESS, *LOSSY)
    case.target = str(rng.choice(outputs))
    case.from_pipe = case.suffix in (".wav", ".aiff", ".flac", ".au") and rng.random() < 0.15
    case.to_pipe = rng.random() < 0.1
    if case.to_pipe:
        case.target = ".wav"
    case.in_place = not (case.from_pipe or case.to_pipe) and rng.random() < 0.15
    if case.in_place and case.suffix in MEDIA:
        case.in_place = False
    if case.in_place:
        case.target = case.suffix
    for option, share in (("--mono", 0.1), ("--keep-readable", 0.15), ("--replace-nan", 0.3)):
        if rng.random() < share:
            case.options.append(option)
    if rng.random() < 0.1:
        case.options += ["--sample-rate", str(rng.choice((8000, 16000, 48000)))]
    if rng.random() < 0.1 and not case.to_pipe:
        case.options += ["--clip", "rescale"]
    if rng.random() < 0.1:
        case.options += ["--strength", str(rng.choice((0, 0.5)))]


def write(case: Case, path: Path, rng: np.random.Generator) -> None:
    """Write the recording of a case, and damage it."""
    if case.suffix in MEDIA:
        write_media(case, path)
    else:
        containers = {".opus": "OGG", ".rf64": "RF64", ".ogg": "OGG"}
        container = "WAVEX" if case.mask else containers.get(case.suffix)
        if (case.suffix, case.subtype) == (".aiff", "PCM_S8"):
            case.sound = np.tile(case.sound, 16)  # libsndfile would pad an odd length
        sound = case.sound.T
        soundfile.write(path, sound, case.sample_rate, case.subtype, format=container)
    content = bytearray(path.read_bytes())
    if case.mask:
        at = content.index(b"fmt ") + 28
        content[at : at + 4] = struct.pack("<I", case.mask)
    damage(case, content, rng)
    path.write_bytes(content)
    path.chmod(case.mode)


def write_media(case: Case, path: Path) -> None:
    """Write the recording of a case with FFmpeg."""
    import av

    layout = "mono" if len(case.sound) == 1 else "stereo"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(case.subtype, rate=case.sample_rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(case.sound, format="fltp", layout=layout)
        frame.sample_rate = case.sample_rate
        resampler = av.AudioResampler(
            stream.format, layout, case.sample_rate, stream.frame_size or 1024
        )
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            container.mux(stream.encode(part))


def damage(case: Case, content: bytearray, rng: np.random.Generator) -> None:
    """Change the bytes of a file."""
    if case.damage == "cut":
        del content[int(rng.integers(1, max(len(content), 2))) :]
    elif case.damage in ("flip header", "flip sound"):
        first, last = (0, 64) if case.damage == "flip header" else (64, len(content))
        for position in rng.integers(first, max(last, first + 1), 4):
            if position < len(content):
                content[position] ^= int(rng.integers(1, 256))
    elif case.damage in ("no size", "stale size"):
        mark, offset, counted = {
            ".wav": (b"data", 4, 0),
            ".aiff": (b"SSND", 4, 8),
            ".au": (b".snd", 8, 0),
        }[case.suffix]
        at = content.index(mark) + offset
        order = "<" if case.suffix == ".wav" else ">"
        frame = (
            case.sound.shape[0]
            * soundfile.SoundFile(io.BytesIO(content)).read(0, always_2d=True).shape[0]
        )
        size = 0
        if case.damage == "stale size":
            size = struct.unpack_from(f"{order}I", content, at)[0] - counted
            size = size // case.sound.shape[1] * (case.sound.shape[1] // 3) + frame
        struct.pack_into(f"{order}I", content, at, size + (counted if size else 0))
    elif case.damage == "junk":
        content += bytes(rng.integers(0, 256, int(rng.integers(1, 3000)), np.uint8))
    elif case.damage == "text":
        content[:] = b"This is no sound, but text.\n" * 20
    elif case.damage == "empty":
        content.clear()


def may_fail(case: Case) -> bool:
    """Return whether an error is a right answer to a whole recording."""
    channels, length = case.sound.shape
    channels = 1 if "--mono" in case.options else channels
    rate = case.sample_rate
    if "--sample-rate" in case.options:
        rate = int(case.options[case.options.index("--sample-rate") + 1])
    return bool(
        (not np.isfinite(case.sound).all() and "--replace-nan" not in case.options)
        or (case.target == ".mp3" and (channels > 2 or rate not in MP3_RATES))
        or (case.target == ".opus" and rate not in OPUS_RATES)
        or (case.target == ".flac" and channels > 8)
        or length * rate // case.sample_rate < 2_000  # lossy codecs may need more
        or (case.from_pipe and case.subtype in (*LOSSY[".wav"], "DOUBLE"))
        or (case.target == ".ogg" and not 8000 <= rate <= 48000)
    )


def judge(case: Case, folder: Path, source: Path, target: Path, result: Any) -> list[str]:
    """Return what went wrong in a call."""
    wrong = []
    stderr = result.stderr
    if "Traceback" in stderr or not isinstance(result.exception, SystemExit | None):
        wrong.append("traceback")
    leftovers = [path for path in folder.iterdir() if path not in (source, target)]
    if leftovers:
        wrong.append("files left behind")
    if result.exit_code != 0:
        if not case.in_place and target.exists():
            wrong.append("files left behind")
        if result.exit_code not in (1, 2) or "error" not in stderr.lower():
            wrong.append("wrong exit code")
        if not case.damage and not may_fail(case):
            wrong.append("wrong exit code")
        if case.in_place and case.damage != "empty" and not source.stat().st_size:
            wrong.append("silent loss")
        return wrong
    if case.damage in ("text", "empty"):
        return [*wrong, "wrong exit code"]
    if "warning" not in stderr and not is_complete(case, target):
        wrong.append("silent loss")
    if case.in_place and stat.S_IMODE(target.stat().st_mode) != case.mode:
        wrong.append("silent loss")
    return wrong


def is_complete(case: Case, target: Path) -> bool:
    """Return whether the output holds the recording, as the options ask for it."""
    try:
        with reader(target) as file:
            info, sound = file.info, np.concatenate(list(file), axis=1)
    except Exception:
        return False
    if case.damage.startswith("flip"):
        return True  # what was damaged cannot be known
    channels = 1 if "--mono" in case.options else len(case.sound)
    rate = case.sample_rate
    if "--sample-rate" in case.options:
        rate = int(case.options[case.options.index("--sample-rate") + 1])
    if (info.channels, info.sample_rate) != (channels, rate):
        return False
    if case.mask and channels > 2 and case.target in (".wav", ".rf64") and info.mask != case.mask:
        return False
    expected = round(case.sound.shape[1] * rate / case.sample_rate)
    # Encoders of lossy sources and outputs pad the sound.
    exact = case.lossless and case.target in LOSSLESS and "ADPCM" not in info.subtype
    slack = 0 if exact else max(6000, 6000 * rate // case.sample_rate)
    least = expected
    if case.damage == "cut" and case.suffix in MEDIA:  # containers round the length
        least -= (case.sound.shape[1] // 10 + 1200) * rate // case.sample_rate
    length = sound.shape[1]
    if length < max(least, 1) - (1 if rate != case.sample_rate else 0) - (slack > 0) * 2:
        return False
    if length > max(expected, 1) + 1 + slack:
        return False
    if slack or rate != case.sample_rate or len(case.options) > 0 or case.target == ".mp3":
        return True
    if not np.isfinite(case.sound).all() or np.abs(case.sound.mean(axis=1)).max() > 0.1:
        return True  # NaN is set to zero, and an offset is removed
    error = np.abs(sound[:, : case.sound.shape[1]] - np.clip(case.sound, -1, 1)).max()
    return bool(error < 2**-6)


def run(number: int, model: Path, folder: Path) -> tuple[Case, list[str], str]:
    """Run a case; return it, what went wrong, and what was printed."""
    case = draw(number)
    source = folder / f"in{case.suffix}"
    try:
        write(case, source, np.random.default_rng([number, 1]))
    except (soundfile.LibsndfileError, OSError, ValueError) as error:
        return case, [], f"not written: {error}"
    target = source if case.in_place else folder / f"out{case.target}"
    arguments = ["-" if case.from_pipe else str(source), "--model", str(model), *case.options]
    arguments += ["-o", "-" if case.to_pipe else str(target)]
    arguments += ["--overwrite"] * case.in_place
    content = source.read_bytes() if case.from_pipe else None
    try:
        result = CliRunner().invoke(app, ["clean", *arguments], input=content)
    except BaseException:
        return case, ["traceback"], traceback.format_exc()
    if case.to_pipe and result.exit_code == 0:
        target.write_bytes(result.stdout_bytes)
    wrong = judge(case, folder, source, target, result)
    printed = result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        printed += "".join(traceback.format_exception(result.exception))
    return case, wrong, printed


def write_model(folder: Path) -> Path:
    """Write a model whose network changes nothing."""
    folder.mkdir()
    level = [{"filters": 1}]
    spec = {"name": "identity", "downsampling": level, "upsampling": level}
    (folder / "spec.json").write_text(json.dumps(spec))
    shape = ["batch", "frequency", "frames", 2]
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name in ("spectrum", "mask")
    ]
    nodes = [
        onnx.helper.make_node("Mul", ["spectrum", "zero"], ["nothing"]),
        onnx.helper.make_node("Add", ["nothing", "one"], ["mask"]),
    ]
    constants = {"zero": np.float32([0]), "one": np.float32([1, 0])}
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "identity", [values[0]], [values[1]], initializers)
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder


def main() -> None:
    """Run all cases and print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="denoise-") as work:
        model = write_model(Path(work, "model"))
        for number in range(arguments.first, arguments.first + arguments.count):
            folder = Path(work, str(number))
            folder.mkdir()
            case, wrong, printed = run(number, model, folder)
            counts["not written"] += printed.startswith("not written")
            counts.update(set(wrong))
            if wrong or arguments.count == 1:
                print(f"{number}: {case}: {', '.join(wrong)}\n{printed}", file=sys.stderr)
            for path in folder.iterdir():
                path.unlink() if path.is_file() else None
    print("| of recordings | number |\n|---|---|")
    print(f"| cleaned or refused | {arguments.count - counts['not written']} |")
    for name in ("traceback", "silent loss", "wrong exit code", "files left behind"):
        print(f"| {name} | {counts[name]} |")


if __name__ == "__main__":
    main()
