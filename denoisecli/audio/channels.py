"""The order of channels: that of WAV in this program, another one in Ogg files.

The channel mask of WAV (dwChannelMask) has a bit for each position of a loudspeaker; the channels
are in the order of the bits.
"""

import numpy as np

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
    """Return the mask of FFmpeg's names of channels; 0 if WAV has no bit for one, or for mono."""
    if not set(names) <= set(_POSITIONS):
        return 0
    return sum(1 << _POSITIONS.index(name) for name in set(names))
