"""Fetch further recordings for training, with free licences, from public repositories.

    python examples/training-speech/fetch_more.py FOLDER [--only NAME ...]

It writes mono FLAC at each source's own rate to FOLDER/speech-found/NAME and
FOLDER/noise-found/NAME, and keeps the checkouts in FOLDER/checkouts. It needs git. The licences and
what was measured of each source are in README.md beside this file.
"""

import argparse
import subprocess
import zlib
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import scipy.signal

from denoisecli.audio import files
from denoisecli.types import AudioVector

EVENT, STRING = 3.0, 8.0
"""Sounds up to EVENT s are strung together to clips of about STRING s."""

FRAME = 0.043
"""Length of a frame in s where the noise floor is lowered."""

PAUSE, LINE = 0.12, 12.0
"""Words are strung together with pauses of PAUSE s to clips of up to LINE s."""


@dataclass(frozen=True)
class Source:
    """Recordings of one commit of a repository.

    Attributes:
        folder: Where the recordings are written, below the folder of the command.
        repository: Owner and name on GitHub.
        commit: The commit that was examined.
        patterns: Globs of the files to take.
        but_not: Parts of paths to leave out.
        lower_floor: Whether the recordings have a steady background to be lowered.
        unclipped: Whether recordings with samples at full scale are left out.
        join: Whether short events are strung together.
        credited: Whether only files are taken that a table in ``credits.md`` beside them lists
            under CC0 or CC BY.
        words: Whether the recordings are single words or short sentences, to be trimmed and strung
            together with those of the same folder.
        least_snr_db: Recordings with a lower signal-to-noise ratio, after the background was
            lowered, are left out.
        pauses: Share of the frames that are noise for that ratio. It must be larger than the share
            of digital silence.
    """

    folder: str
    repository: str
    commit: str
    patterns: tuple[str, ...]
    but_not: tuple[str, ...] = ()
    lower_floor: bool = False
    unclipped: bool = False
    join: bool = False
    credited: bool = False
    words: bool = False
    least_snr_db: float = -np.inf
    pauses: float = 0.05

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.partition("/")[2]


SOURCES = (
    Source(
        "speech-found/nist-mrt",
        "usnistgov/intelligibility",
        "245d9a39d39f83303440e4383713fcae273e469e",
        ("mcvqoe/intelligibility/audio_clips/*.wav",),
        lower_floor=True,
    ),
    Source(
        "speech-found/nist-harvard",
        "usnistgov/mouth2ear",
        "a67acc83af71dca9d2334d70ba5b7cba9db3bc07",
        ("mcvqoe/mouth2ear/audio_clips/*.wav",),
    ),
    Source(
        "speech-found/nathalie",
        "rhasspy/dataset-voice-nathalie",
        "3b3e91f39d13e2e681d8937575efb9bd3b3d8f5c",
        ("verified/*.flac",),
    ),
    Source(
        "speech-found/kathleen",
        "rhasspy/dataset-voice-kathleen",
        "c51cb971036a127359b43c621f26ca5081eab13e",
        ("data/*.wav",),
        lower_floor=True,
    ),
    Source(
        "speech-found/flemishguy",
        "rhasspy/dataset-voice-flemishguy",
        "2576e9c8e5b6eec92e45010b5ede87c4f836f21e",
        ("wavs/*.wav",),
        lower_floor=True,
    ),
    Source(
        "speech-found/nabucasa",
        "NabuCasa/voice-datasets",
        "bae22cb470c50c3ac4b743e6350851b8da893f71",
        ("*/*/*.mp3",),
        # elsewhere in full, or with little above 8 kHz
        but_not=("kerstin", "kathleen", "nathalie", "flemishguy", "joe", "chitwan", "denis"),
    ),
    Source(
        "speech-found/curious-assessment",
        "curiouslearning/assessment-survey-js",
        "3733af5076f812b3a29dc1676b01445a0adf85c8",
        ("public/assets/audio/*/*.mp3", "public/assets/audio/*/*.wav"),
        but_not=("sound-effects",),
        words=True,
    ),
    Source(
        "speech-found/feed-the-monster",
        "monu1041/FeedTheMonsterJS",
        "e05e754b59c3ff20a6cc8d5d9a43707b846ef007",
        ("lang/*/audios/*.mp3", "lang/*/audios/*.wav"),
        but_not=("fantastic", "great", "amazing"),  # with applause
        words=True,
    ),
    Source(
        "speech-found/tinkrbook",
        "curiouslearning/TinkrTeam_FirstTinkrBook",
        "1cd6c538209ddaefe2144b14e175424ac7892fa7",
        ("Assets/Resources/Audio/VO/*.mp3", "Assets/Resources/Audio/VO/Stanzas/*.mp3"),
        words=True,
    ),
    Source(
        "speech-found/rainbow-fart",
        "SaekiRaku/vscode-rainbow-fart",
        "20bc95dc84eab50841a280ad5048a0f9a56d2a70",
        ("src/built-in-voice-packages/built-in-voice-chinese/*.mp3",),
    ),
    Source(
        "speech-found/ptdb",
        "microsoft/P.808",
        "5b8c00a0654d836dbbd86cafab570fbab350f1ad",
        ("src/environment test/script/clips/[fm]?.wav",),
    ),
    Source(
        "speech-found/common-voice",
        "castorini/howl",
        "4ba5f42e8af0100d65d62a5a059269ad108eb0f8",
        ("test/test_data/datasets/common-voice/clips/common_voice_en_2000*.mp3",),
    ),
    Source(
        "speech-found/oels",
        "kennysmithed/oels2022",
        "db624ef81e0c47a2fb4b986bc9682c3568af6da6",
        ("confederate_priming/sounds/*.wav",),
        words=True,
    ),
    Source(
        "speech-found/elimu-letters",
        "elimu-ai/visemes",
        "7ca5a2d68c0b07762a94507a4c2c4ecc42a8c858",
        ("app/src/main/res/raw/letter_sound_*.wav",),
        words=True,
    ),
    Source(
        "speech-found/elimu-digits",
        "elimu-ai/nyas-space-quest",
        "b3384e3a8c25d283bcb6a06fd8251d7720b4ae5a",
        ("Resources/sfx/*/digit_*.wav",),
        words=True,
    ),
    Source(
        "speech-found/fleurs-du-mal",
        "heitorchang/fleursdumal_librivox",
        "81961cf355fb139faecbe63d0f244017ee94b86b",
        ("audio/fleursdumal_*[05]_*_64kb.mp3",),
    ),
    Source(
        "speech-found/libritts-e1tts",
        "e1tts/e1tts.github.io",
        "c1378ffde3186dafcd7c00aaee19fd41d297d095",
        ("samples/prompt/prompt/*.wav", "samples/prompt/ground_truth/*.wav"),
        least_snr_db=33,
    ),
    Source(
        "speech-found/libritts-univnet",
        "mindslab-ai/univnet",
        "9bb2b54838bb6d7ce767131cc7b8b61198bc7558",
        ("docs/samples/*/ground_truth/*.wav",),
        least_snr_db=33,
    ),
    Source(
        "speech-found/libritts-miipher",
        "google/df-conformer",
        "77f11f3fb3a71c13addd0af7b3f35951c72884c3",
        ("miipher2/libritts/*_libritts.wav",),
        least_snr_db=33,
    ),
    Source(
        "speech-found/dspspeech",
        "zhongyuchen/DSPSpeech-20",
        "8165959c2567190524898e8187021c8ffb19b262",
        ("speech_data/*/*-[01]5.wav",),
        words=True,
    ),
    Source(
        "speech-found/svd",
        "RakhilML/Voice-Pathology-Detection",
        "6bc81628f1c77717a11875a2482a84696f5f710b",
        ("Dataset/Before Augmentation (Original)/*/*-phrase.wav",),
        lower_floor=True,
        unclipped=True,
        words=True,
        least_snr_db=33,
    ),
    Source(
        "speech-found/thorsten",
        "thorstenMueller/deep-learning-german-tts",
        "2ed2413dda915a6354cfa7823257aa13dddfc567",
        ("samples/original_recording/*.wav",),
    ),
    Source(
        "speech-found/alphanumeric",
        "Sakshee5/alphanumeric-audio-dataset",
        "6c9a38ed7e590a45410fdc33a548005a30f03552",
        ("audio_data/*/*.wav",),
        lower_floor=True,
        unclipped=True,
        least_snr_db=50,
    ),
    Source(
        "speech-found/common-voice-mini",
        "common-voice/common-voice-asr",
        "958848c4302c4b2c688e0f5ca19e26957c90e3e4",
        ("Common-voice-asr/data/raw/mini_cv/*.mp3",),
        unclipped=True,
        least_snr_db=33,
    ),
    Source(
        "speech-found/indian-voices",
        "SandyPanda-MLDL/ALGAN-VC-Generated-Audio-Samples",
        "109a95651bf8fa13e8a8e50b27e2805498c109d0",
        (
            "Speaker_[1-8]_*/*.wav",
            "Speaker_10_*/*.mpeg",
            "R1.*/*.wav",
            "R2.*/*.aac",
            "R4.*/*.mp4",
        ),
        lower_floor=True,
        unclipped=True,
        least_snr_db=33,
    ),
    Source(
        "speech-found/libritts-hierspeech",
        "sh-lee-prml/hierspeech-demo",
        "5379de896ca75c1c6035dc75d2682373b61bdd1d",
        ("audio/libritts/gt/*.wav",),
        lower_floor=True,
        least_snr_db=33,
    ),
    Source(
        "speech-found/libritts-seed-vc",
        "Plachtaa/seed-vc",
        "bc5541769c92c66379bc106551ca7fba1f19a98a",
        ("examples/libritts-test-clean/*.wav",),
        lower_floor=True,
        least_snr_db=33,
    ),
    Source(
        "speech-found/libritts-languagecodec",
        "languagecodec/languagecodec.github.io",
        "ead19a03bebd6489a316ce233c04c60fb55d1740",
        ("assets/audios/[0-9]*.wav", "assets/more_audios/[0-9]*.wav"),
        lower_floor=True,
        least_snr_db=33,
    ),
    Source(
        "speech-found/libritts-vocoder",
        "kallavinka8045/icassp2021",
        "35c68b4f816e5248763332dd5363c5a4641b302f",
        (
            "wav_for_mos/eng/gt/eng_seen_universal/*.wav",
            "wav_for_mos/eng/gt/eng_ood_unseen_clean/*.wav",
        ),
        lower_floor=True,
        least_snr_db=33,
    ),
    Source(
        "speech-found/libritts-wavefm",
        "luotianze666/WaveFM",
        "1da27c5cc9649a0f2ae264794676feb6c0659905",
        ("docs/audio/Ground_Truth/[0-9]*.wav",),
        lower_floor=True,
        least_snr_db=33,
    ),
    Source(
        "speech-found/cml-tts",
        "freds0/CML-TTS-Dataset",
        "b7edc3d3be69689f00e9476722efe2d4f12ab447",
        ("audios_demo/*/*/*_ground_truth.wav",),
        lower_floor=True,
        least_snr_db=33,
    ),
    Source(
        "speech-found/common-voice-languages",
        "omnilingo/rsample-100-cv-corpus-6.1-2020-12-11",
        "6785f863fec9770151abfe50a5e3e3787fd20ba2",
        ("*/clips/*.mp3",),
        lower_floor=True,
        unclipped=True,
        least_snr_db=40,
        pauses=0.25,
    ),
    Source(
        "speech-found/speechocean762",
        "jimbozhang/speechocean762",
        "613968e3b0b789fc33936fb5eba1973176ba7d11",
        ("WAVE/SPEAKER*/*[05].WAV",),
        lower_floor=True,
        unclipped=True,
        least_snr_db=40,
    ),
    Source(
        "speech-found/feed-the-monster-russian",
        "Ash2022/FeedTheMonster-LearnRussian",
        "a7a04bcde9666f9e23a2cb16521aa2618927beb7",
        tuple(
            f"Assets/Resources/Sounds/Voice/{name}/**/*.mp3"
            for name in ("Letters", "Words", "Instructions")
        ),
        words=True,
    ),
    Source(
        "noise-found/ambientsounds",
        "Muges/ambientsounds",
        "7ef9aefeeed93c37bca3cdb246a982dd1afce2f0",
        ("*.ogg",),
    ),
    Source(
        "noise-found/cc-sounds",
        "Fris0uman/CDDA-Soundpacks",
        "88586bb600eae4b053a8928bddbd5371d0b1ecc6",
        ("sound/CC-Sounds/**/*.ogg",),
        but_not=("speech/", "radio/", "deal_damage/", "mon_", "fatigue", "clean_up"),
        join=True,
        credited=True,
    ),
    Source(
        "noise-found/openhv",
        "OpenHV/OpenHV",
        "d507035349b05a774baedbdebd2e60abb6c57895",
        tuple(f"mods/hv/bits/audio/{name}/*.ogg" for name in ("cc0", "cc-by-30", "cc-by-40", "pd")),
        but_not=("mothership", "battleship", "drone", "torpedo", "worm"),  # voices
        join=True,
    ),
    Source(
        "noise-found/soundscapes",
        "conntrace/Soundscapes",
        "0b5498e794641d6d78261a1d9d8d47ac3c6f2bdd",
        ("samples/*/*.mp3",),
        but_not=(  # voices, music, or nothing above 8 kHz
            *("restaurant-conversations", "outside-talks", "london-bus", "cheerful-street"),
            *("outdoor-market", "kindergarten", "motorcycle", "wind", "thunder"),
        ),
    ),
    Source(
        "noise-found/tumult",
        "consint/Tumult",
        "723c05ffbb55323f3ee2fb7a75228fac7c776ef2",
        tuple(f"Samples/{name}/*.wav" for name in ("hum", "machine", "static", "vinyl", "world")),
        but_not=("hum1.", "hum2."),
    ),
    Source(
        "noise-found/kitchen20",
        "marc-moreaux/kitchen20",
        "8bc9544507e8c3477eb8fcd3a6c841b661121220",
        # The recordings of the authors, by the letters of their names.
        (
            *(f"audio/[0-9]-{name}-*.wav" for name in ["D", "J", "J2", "Jaz", "K", "L", "M", "M2"]),
            "audio/[0-9]-econome1*.wav",
        ),
        but_not=(  # from other sites, or with voices
            *("ASMR", "BLACK", "Black", "Philips", "plucher"),
            *("7-D-Balai.m4a-F-19", "7-Jaz-machine2019-A-1", "8-Jaz-machine2019-C-1"),
        ),
    ),
    Source(
        "noise-found/drones",
        "DroneDetectionThesis/Drone-detection-dataset",
        "442d0c6750708cc221636f7a1fd31cbd8cb0aeb8",
        ("Data/Audio/*.wav",),
        but_not=("BACKGROUND_004", "DRONE_017", "DRONE_026"),  # voices
    ),
    Source(
        "noise-found/countryside",
        "DrunkenToast/gui-project",
        "52d6f58b32c44ef118428c1ef801785a8981fea4",
        tuple(f"sounds/**/{name}.ogg" for name in ("construction", "leaves", "farm")),
    ),
)


def obtain(source: Source, checkouts: Path) -> Path:
    """Check out the commit of a source unless that was done before, and return its folder."""
    folder = checkouts / source.repository
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        url = f"https://github.com/{source.repository}"
        for command in (
            ["init", "--quiet"],
            ["fetch", "--quiet", "--depth", "1", url, source.commit],
            ["checkout", "--quiet", "FETCH_HEAD"],
        ):
            subprocess.run(["git", "-C", partial, *command], check=True)
        partial.rename(folder)
    return folder


def is_credited(path: Path) -> bool:
    """Return whether the table in ``credits.md`` beside a file lists it under CC0 or CC BY."""
    for line in (path.parent / "credits.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip(" *") for cell in line.strip().strip("|").split("|")]
        if len(cells) > 2 and cells[0].removesuffix(".ogg").lower() == path.stem.lower():
            licence = cells[2].replace("-", " ").upper()
            return licence.startswith(("CC0", "CC 0", "CC BY")) and "NC" not in licence
    return False


def select(source: Source, checkout: Path) -> list[Path]:
    """Return the files of a source to take, sorted."""
    paths = sorted(path for pattern in source.patterns for path in checkout.glob(pattern))
    return [
        path
        for path in paths
        if not any(part in str(path.relative_to(checkout)) for part in source.but_not)
        and (not source.credited or is_credited(path))
    ]


def lower_floor(speech: AudioVector, sample_rate: int, depth_db: float = 15) -> AudioVector:
    """Lower the steady background of a clean recording with a Wiener filter.

    The background is estimated from the quietest frames. What is 10 dB above it stays as it is.

    Args:
        speech: A recording with a background at least 25 dB below the voice.
        sample_rate: Sample rate in Hz.
        depth_db: Greatest attenuation in dB.

    Returns:
        The recording with a lower background, as long as before.
    """
    size = 2 * round(FRAME * sample_rate / 2)
    _, _, spectrum = scipy.signal.stft(speech, sample_rate, nperseg=size, noverlap=size * 3 // 4)
    power = np.abs(spectrum) ** 2
    inner = power[:, 4:-4] if power.shape[1] > 40 else power  # the ends are padded
    level = inner[1:].sum(axis=0)
    quiet = np.argsort(level)[: max(4, level.size // 20)]
    floor = inner[:, quiet].mean(axis=1)
    kernel = np.hanning(13)[1:-1]
    floor = np.convolve(np.pad(floor, 5, mode="edge"), kernel / kernel.sum(), mode="valid")
    smooth = scipy.signal.convolve2d(power, np.full((5, 5), 1 / 25), mode="same", boundary="symm")
    gain = 1 - 1.5 * floor[:, None] / np.maximum(smooth, 1e-20)
    gain = np.clip(gain, 10 ** (-depth_db / 20), 1)
    _, quieter = scipy.signal.istft(
        spectrum * gain, sample_rate, nperseg=size, noverlap=size * 3 // 4
    )
    return quieter[: speech.size].astype(speech.dtype)


def string_together(
    events: list[AudioVector], sample_rate: int, rng: np.random.Generator
) -> list[AudioVector]:
    """Join short events, in random order and with random gaps and levels, to longer clips."""
    clips: list[AudioVector] = []
    parts: list[AudioVector] = []
    for number in rng.permutation(len(events)):
        event = events[number]
        peak = float(np.max(np.abs(event), initial=1e-6))
        parts.append(event * np.float32(10 ** (rng.uniform(-15, -3) / 20) / peak))
        parts.append(np.zeros(int(rng.uniform(0.05, 0.8) * sample_rate), np.float32))
        if sum(part.size for part in parts) > STRING * sample_rate:
            clips.append(np.concatenate(parts))
            parts = []
    return [*clips, np.concatenate(parts)] if parts else clips


def frame_levels(speech: AudioVector, sample_rate: int) -> np.ndarray:
    """Return the levels of frames of 20 ms in dB."""
    size = round(0.02 * sample_rate)
    frames = speech[: speech.size // size * size].reshape(-1, size)
    return 10 * np.log10(np.square(frames, dtype=np.float64).mean(axis=1) + 1e-20)


def signal_to_noise_db(speech: AudioVector, sample_rate: int, pauses: float) -> float:
    """Estimate the SNR in dB: that of the loud frames to the quietest share of the frames."""
    levels = np.sort(frame_levels(speech, sample_rate))
    if levels.size < 10:
        return -np.inf
    power = 10 ** (levels / 10)
    loud = power[levels > levels[-1] - 30].mean()
    return float(10 * np.log10(loud / power[: int(pauses * levels.size) + 1].mean()))


def trim(word: AudioVector, sample_rate: int, margin: float = 0.08) -> AudioVector:
    """Cut off the ends of a recording that are 50 dB below its loudest frame, but for a margin."""
    levels = frame_levels(word, sample_rate)
    loud = np.flatnonzero(levels > np.max(levels, initial=-np.inf) - 50)
    if not loud.size or not np.any(word):
        return word[:0]
    start = max(0, round((loud[0] * 0.02 - margin) * sample_rate))
    word = word[start : round(((loud[-1] + 1) * 0.02 + margin) * sample_rate)].copy()
    fade = min(round(0.004 * sample_rate), word.size)
    ramp = np.linspace(0, 1, fade, dtype=word.dtype)
    word[:fade] *= ramp
    word[word.size - fade :] *= ramp[::-1]
    return word


def string_words(words: list[AudioVector], sample_rate: int) -> list[AudioVector]:
    """Join the words of a voice, in their order and at their levels, to clips of LINE s."""
    pause = np.zeros(round(PAUSE * sample_rate), np.float32)
    clips: list[list[AudioVector]] = [[]]
    for word in words:
        if sum(part.size for part in clips[-1]) + word.size > LINE * sample_rate:
            clips.append([])
        clips[-1] += [word, pause]
    return [np.concatenate(parts) for parts in clips if parts]


def convert(source: Source, paths: list[Path], folder: Path) -> None:
    """Write the recordings of a source as FLAC; those that were written before are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [path.with_suffix("").parts for path in paths]
    # As many folders become part of the names as make them different.
    levels = next(n for n in count(1) if len({part[-n:] for part in parts}) == len(parts))
    events: dict[int, list[AudioVector]] = {}
    voices: dict[tuple[str, int], list[AudioVector]] = {}
    for path, names in zip(paths, parts, strict=True):
        name = "-".join(names[-levels:])
        target = folder / f"{name}.flac"
        if target.exists():
            continue
        sound, sample_rate = files.read_mono(path)
        if source.join and sound.size <= EVENT * sample_rate:
            events.setdefault(sample_rate, []).append(sound)
            continue
        if source.unclipped and np.max(np.abs(sound)) > 0.999:
            continue
        if source.lower_floor:
            sound = lower_floor(sound, sample_rate)
        if signal_to_noise_db(sound, sample_rate, source.pauses) < source.least_snr_db:
            continue
        if source.words:
            voices.setdefault((path.parent.as_posix(), sample_rate), []).append(
                trim(sound, sample_rate)
            )
            continue
        files.write(target, sound, sample_rate, subtype="PCM_16", overwrite=True)
    rng = np.random.default_rng(zlib.crc32(source.name.encode()))
    for sample_rate, sounds in sorted(events.items()):
        for number, clip in enumerate(string_together(sounds, sample_rate, rng)):
            target = folder / f"events-{sample_rate}-{number:03}.flac"
            files.write(target, clip, sample_rate, subtype="PCM_16", overwrite=True)
    for voice, ((_, sample_rate), words) in enumerate(sorted(voices.items())):
        for number, clip in enumerate(string_words(words, sample_rate)):
            target = folder / f"voice-{voice:02}-{number:03}.flac"
            files.write(target, clip, sample_rate, subtype="PCM_16", overwrite=True)


def main() -> None:
    """Fetch and convert all sources."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", choices=[source.name for source in SOURCES])
    options = parser.parse_args()
    for source in SOURCES:
        if options.only is None or source.name in options.only:
            checkout = obtain(source, options.folder / "checkouts")
            convert(source, select(source, checkout), options.folder / source.folder)


if __name__ == "__main__":
    main()
