"""Which channel is which loudspeaker, from one format to another."""

import struct

import av
import numpy as np
import pytest
import soundfile
from helpers import constant_mask, mostly_slow

from denoisecli.audio.channels import fits_ogg, from_ogg_order, mask_of_names, to_ogg_order
from denoisecli.audio.files import probe
from denoisecli.audio.pipe import pipe_reader
from denoisecli.audio.reading import reader
from denoisecli.cleaning.denoiser import Denoiser
from denoisecli.cleaning.file import FileOptions

RATE = 48000


@pytest.fixture
def identity(model_folder):
    return Denoiser(model_folder(constant_mask(1.0)))


def tones(channels):
    """Return a tone of (n + 1) * 20 Hz, which passes an LFE, in channel n."""
    t = np.arange(RATE) / RATE
    return np.stack([0.2 * np.sin(2 * np.pi * 20 * (n + 1) * t) for n in range(channels)])


def tones_of(path):
    """Return the names of the channels and the numbers of their tones, as FFmpeg sees them."""
    with av.open(str(path)) as container:
        layout = container.streams.audio[0].layout
        resampler = av.AudioResampler(format="fltp", rate=RATE)
        frames = [f for frame in container.decode(audio=0) for f in resampler.resample(frame)]
    sound = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)[:, : RATE - 2000]
    spectra = np.abs(np.fft.rfft(sound[:, 1000:], 20 * RATE))
    peaks = np.round(spectra.argmax(axis=1) / 20 / 20).astype(int) - 1
    return {channel.name: peak for channel, peak in zip(layout.channels, peaks, strict=True)}


def write_with(path, layout, channels):
    """Write tones with another program than this one."""
    sound = tones(channels).astype(np.float32)
    if path.suffix == ".ogg":
        assert layout == "5.1"
        soundfile.write(path, sound[[0, 2, 1, 4, 5, 3]].T, RATE)
        return
    codec = {".wav": "pcm_s16le", ".flac": "flac", ".opus": "libopus"}[path.suffix]
    with av.open(str(path), "w", format="ogg" if path.suffix == ".opus" else None) as container:
        stream = container.add_stream(codec, rate=RATE, layout=layout)
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout=layout)
        frame.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, layout, RATE, stream.frame_size or 1024)
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            container.mux(stream.encode(part))


SURROUND = ("FL", "FR", "FC", "LFE", "BL", "BR")


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (".wav", ".ogg"),
        (".wav", ".opus"),
        (".ogg", ".wav"),
        (".opus", ".flac"),
        (".flac", ".wav"),
        (".ogg", ".ogg"),
    ],
)
def test_surround_stays_where_it_is(identity, tmp_path, source, target):
    path = tmp_path / f"in{source}"
    write_with(path, "5.1", 6)
    before = tones_of(path)
    assert tuple(before)[:4] == SURROUND[:4]
    identity.clean_file(path, tmp_path / f"out{target}")
    assert list(tones_of(tmp_path / f"out{target}").values()) == list(before.values())


@pytest.mark.parametrize(
    ("layout", "channels", "mask"),
    mostly_slow(
        [("3.0", 3, 0x7), ("4.0", 4, 0x107), ("5.1(side)", 6, 0x60F), ("6.1", 7, 0x70F)],
        ("3.0", 3, 0x7),
    ),
)
@pytest.mark.parametrize("target", ["out.wav", "out.flac"])
def test_the_mask_of_a_wav_is_kept(identity, tmp_path, layout, channels, mask, target):
    path = tmp_path / "in.wav"
    write_with(path, layout, channels)
    assert probe(path).mask == mask
    result = identity.clean_file(path, tmp_path / target)
    assert probe(tmp_path / target).mask == mask
    assert tones_of(tmp_path / target) == tones_of(path)
    assert not result.warnings
    mono = identity.clean_file(path, tmp_path / "mono.wav", FileOptions(mono=True))
    assert not mono.warnings
    assert soundfile.info(tmp_path / "mono.wav").format == "WAV"


def test_a_layout_that_ogg_lacks_is_named(identity, tmp_path):
    write_with(tmp_path / "in.wav", "4.0", 4)
    result = identity.clean_file(tmp_path / "in.wav", tmp_path / "out.ogg")
    assert "channel mask" in " ".join(result.warnings)


def test_the_mask_goes_through_pipes(identity, tmp_path):
    write_with(tmp_path / "in.wav", "5.1(side)", 6)
    with (tmp_path / "in.wav").open("rb") as source, (tmp_path / "out.wav").open("wb") as target:
        identity.clean_file(source, target)
    assert tuple(tones_of(tmp_path / "out.wav")) == ("FL", "FR", "FC", "LFE", "SL", "SR")


@pytest.mark.parametrize(("form", "suffix"), [("WAVEX", "wav"), ("RF64", "rf64"), ("FLAC", "flac")])
@pytest.mark.parametrize("mask", [0x60F, 0])
def test_a_pipe_has_the_mask_of_the_file(identity, tmp_path, form, suffix, mask):
    source, path = tmp_path / "in.wav", tmp_path / f"file.{suffix}"
    if mask:
        write_with(source, "5.1(side)", 6)
    else:
        soundfile.write(source, tones(6).T, RATE, "PCM_16")
    if form == "WAVEX":
        path = source
    else:
        identity.clean_file(source, path)
    with reader(path) as file, path.open("rb") as stream:
        assert pipe_reader(stream).info.mask == file.info.mask
    assert (file.info.mask == 0x60F) == bool(mask)


@pytest.mark.parametrize("channels", range(1, 10))
def test_orders_are_inverse(channels):
    block = np.arange(channels, dtype=np.float32)[:, None]
    np.testing.assert_array_equal(from_ogg_order(to_ogg_order(block)), block)


def test_masks():
    assert mask_of_names(["FL", "FR", "FC", "LFE", "SL", "SR"]) == 0x60F
    assert mask_of_names(["FL", "WL"]) == 0
    assert fits_ogg(0x60F, 6)
    assert fits_ogg(0, 4)
    assert not fits_ogg(0x107, 4)


@pytest.mark.parametrize("suffix", ["w64", "caf"])
@pytest.mark.parametrize(
    ("layout", "mask"),
    [("2.1", 0xB), ("4.0", 0x107), ("5.0(side)", 0x607), ("5.1(side)", 0x60F), ("7.1(wide)", 0xFF)],
)
def test_masks_of_w64_and_caf_are_read(tmp_path, suffix, layout, mask):
    path = tmp_path / f"x.{suffix}"
    channels = av.AudioLayout(layout).nb_channels
    with av.open(str(path), "w") as container:
        track = container.add_stream("pcm_s16le", rate=8000, layout=layout)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 800 * channels), np.int16), format="s16", layout=layout
        )
        frame.sample_rate = 8000
        for part in (frame, None):
            container.mux(track.encode(part))
    with reader(path) as file:
        assert file.info.mask == mask


def test_a_caf_without_a_layout_has_no_mask(tmp_path):
    soundfile.write(tmp_path / "x.caf", np.zeros((80, 4)), 8000)
    with reader(tmp_path / "x.caf") as file:
        assert file.info.mask == 0


@pytest.mark.parametrize(
    ("tag", "channels", "mask"),
    [(131, 3, 0x103), (133, 3, 0xB), (134, 4, 0x10B), (136, 4, 0xF), (137, 5, 0x10F), (138, 5, 0)],
)
def test_layouts_of_caf_are_those_of_its_specification(tmp_path, tag, channels, mask):
    """Their numbers, and those of channels, are in CoreAudioTypes.h; 138 has another order."""
    path = tmp_path / "x.caf"
    soundfile.write(path, np.zeros((80, channels)), 8000)
    content = path.read_bytes()
    layout = b"chan" + struct.pack(">qIII", 12, tag << 16 | channels, 0, 0)
    start = content.index(b"data")
    path.write_bytes(content[:start] + layout + content[start:])
    with reader(path) as file:
        assert file.info.mask == mask
