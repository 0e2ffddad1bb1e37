"""Sound as samples and as spectra: what reads, writes, measures, transforms and draws it.

- ``files``: probe, read, write and find whole recordings.
- ``reading``, ``writing``: recordings block by block, in bounded memory.
- ``pipe``: standard input and output; ``media``: video and MPEG-4 files, through PyAV;
  ``remuxing``: copies of them with other sound.
- ``formats``: file suffixes, sample formats and their limits.
- ``integrity``: how many samples a file claims to hold, to detect one that is cut off.
- ``riff``: the chunks of WAV files, and sizes that do not fit; ``ogg``: chained Ogg files.
- ``channels``: the order of channels; ``metadata``: tags, chunks and pictures beside the sound.
- ``downmix``: the mean of channels, unless they cancel each other out.
- ``resampling``: changes of the sample rate; ``level``: RMS, dBFS and SNR.
- ``dnsmos``: quality of speech, predicted without a reference; ``loudness``: EBU R 128.
- ``stft``: the short-time Fourier transform; ``spectrogram``: its scales, inversion and files.
- ``panels``: recordings reduced to the columns of a picture; ``plot``: the pictures.
- ``choices``: enumerations for the options.

This room imports ``denoisecli.system``, ``denoisecli.errors`` and ``denoisecli.types`` only.
librosa and matplotlib take long to load and are imported inside the functions that use them.
"""
