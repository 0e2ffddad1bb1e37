"""The order of channels: that of WAV in this program, another one in Ogg files.

The channel mask of WAV (dwChannelMask) has a bit for each position of a loudspeaker; the channels
are in the order of the bits.
"""

import io
import struct

import numpy as np

from denoisecli.audio.riff import walk_chunks
from denoisecli.types import AudioBlock

# Vorbis I specification, section 4.3.9; RFC 7845, section 5.1.1.2; RFC 9639, section 9.1.3.
_DEFAULT_MASKS = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}

# For each channel of an Ogg file, which has the centre in second place and the LFE in the last, its
# place in a WAV file.
_OGG_ORDER = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 4, 5, 3),
    7: (0, 2, 1, 5, 6, 4, 3),
    8: (0, 2, 1, 6, 7, 4, 5, 3),
}

_CAF_BITMAP = 1 << 16
_CAF_MASKS = {
    **{108: 0x33, 113: 0x7, 115: 0x107, 117: 0x607, 121: 0x60F, 132: 0x603, 133: 0xB},
    **{125: 0x13F, 131: 0x103, 134: 0x10B, 136: 0xF, 137: 0x10F},
}
"""Masks of the layout tags of CAF (its upper 16 bits) whose channels are in the order of WAV."""

_BACK, _SIDE = 0x30, 0x600  # both are "surround" with five or six channels


def default_mask(channels: int) -> int:
    """Return the channel mask of FLAC and Ogg files; 0 for more than eight channels."""
    return _DEFAULT_MASKS.get(channels, 0)


def fits_ogg(mask: int, channels: int) -> bool:
    """Return whether the channels of a mask, 0 if it is unknown, have a place in an Ogg file."""
    if channels in (5, 6) and mask & _SIDE == _SIDE:
        mask = mask & ~_SIDE | _BACK
    return mask in (0, default_mask(channels))


def to_ogg_order(block: AudioBlock) -> AudioBlock:
    """Return the channels in the order of Ogg files."""
    order = _OGG_ORDER.get(block.shape[0])
    return block if order is None else block[list(order)]


def from_ogg_order(block: AudioBlock) -> AudioBlock:
    """Return the channels of an Ogg file in the order of WAV files."""
    order = _OGG_ORDER.get(block.shape[0])
    return block if order is None else block[np.argsort(order)]


_POSITIONS = (
    *("FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR"),
    *("TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR"),
)


def mask_of_names(names: list[str]) -> int:
    """Return the mask of FFmpeg's names of channels; 0 if WAV has no bit for one, or for two."""
    if not set(names) <= set(_POSITIONS) or len(set(names)) < len(names):
        return 0
    return sum(1 << _POSITIONS.index(name) for name in names)


def wav_order(names: list[str]) -> list[int]:
    """Return the places of FFmpeg's names of channels in the order of WAV files.

    They stay where they are if WAV has no bit for one, or for two.
    """
    places = list(range(len(names)))
    if not mask_of_names(names):
        return places
    return sorted(places, key=lambda place: _POSITIONS.index(names[place]))


def read_caf_mask(raw: io.BufferedIOBase) -> int:
    """Return the channel mask of a CAF file; 0 if it is unknown.

    See Apple Core Audio Format Specification 1.0, "Channel Layout Chunk".
    """
    for chunk in walk_chunks(raw):
        if chunk.name == b"chan" and chunk.size >= 8:
            raw.seek(chunk.start)
            tag, bits = struct.unpack(">II", raw.read(8))
            return bits if tag == _CAF_BITMAP else _CAF_MASKS.get(tag >> 16, 0)
    return 0
