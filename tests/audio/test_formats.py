import numpy as np
import pytest
import soundfile

from denoisecli.audio import formats
from denoisecli.audio.files import read, write
from denoisecli.errors import UsageError


@pytest.mark.parametrize(
    ("name", "like", "expected"),
    [
        ("x.wav", "PCM_16", "PCM_16"),
        ("x.wav", "FLOAT", "FLOAT"),
        ("x.wav", "ULAW", "ULAW"),
        ("x.wav", "IMA_ADPCM", "PCM_16"),
        ("x.wav", "PCM_S8", "PCM_U8"),
        ("x.wav", "ALAC_20", "PCM_24"),
        ("x.wav", "MPEG_LAYER_III", "PCM_16"),
        ("x.w64", "MPEG_LAYER_III", "PCM_16"),
        ("x.mp3", "MPEG_LAYER_III", "MPEG_LAYER_III"),
        ("x.wav", "VORBIS", "PCM_16"),
        ("x.flac", "PCM_24", "PCM_24"),
        ("x.flac", "PCM_U8", "PCM_S8"),
        ("x.flac", "PCM_32", "PCM_24"),
        ("x.FLAC", "FLOAT", "PCM_24"),
        ("x.ogg", "PCM_24", "VORBIS"),
        ("x.ogg", "OPUS", "OPUS"),
        ("x.opus", "VORBIS", "OPUS"),
        ("x.mp3", "FLOAT", "MPEG_LAYER_III"),
    ],
)
def test_nearest_subtype(name, like, expected):
    assert formats.nearest_subtype(name, like) == expected


@pytest.mark.parametrize("name", ["x.avi", "x.xyz", "x"])
def test_formats_on_offer_are_those_that_are_accepted(name):
    for check in (formats.format_of, formats.require_writable):
        with pytest.raises(UsageError, match=f"^{name}: .*; use one of ") as error:
            check(name)
        offered = str(error.value).partition("; use one of ")[2].split()
        for suffix in {*formats.FORMATS, *formats.MEDIA, ".xyz"}:
            if suffix in offered:
                check(f"x{suffix}")
            else:
                with pytest.raises(UsageError):
                    check(f"x{suffix}")


@pytest.mark.parametrize("suffix", formats.FORMATS)
def test_every_subtype_on_offer_can_be_written(suffix, tmp_path):
    with pytest.raises(UsageError, match="does not support the subtype NONE; use one of ") as error:
        formats.require_subtype(f"x{suffix}", "NONE")
    for subtype in str(error.value).partition("; use one of ")[2].split(", "):
        if subtype in formats.BITS or subtype == "MPEG_LAYER_III":
            path = tmp_path / f"{subtype}{suffix}"
            write(path, np.zeros(4000, np.float32), 8000, subtype=subtype)
            assert soundfile.info(path).subtype == subtype


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", ".caf", ".w64", ".au"])
def test_loud_noise_is_read_as_it_was_written(suffix, tmp_path, rng):
    """It cannot be compressed, which some coders do not expect."""
    with pytest.raises(UsageError) as error:
        formats.require_subtype(f"x{suffix}", "NONE")
    for subtype in str(error.value).partition("; use one of ")[2].split(", "):
        if subtype not in formats.BITS:
            continue
        for frames in (1, 2, 4096, 4097, 20_000):
            sound = rng.uniform(-1, 1, (2, frames)).astype(np.float32)
            path = tmp_path / f"x{suffix}"
            write(path, sound, 48000, subtype=subtype, overwrite=True)
            found, _ = read(path)
            np.testing.assert_allclose(found, sound, atol=1.01 * 2.0 ** (1 - formats.BITS[subtype]))
