"""Datasets: folders of recordings become stored pairs of noisy and clean sound, and are read back.

- ``recipe``: all parameters of a dataset; ``choices``: their enumerations.
- ``recordings``: recordings found in folders, and read once they are decoded by ``decoding``.
- ``splitting``: recordings divided into sets; ``clips``: cut and joined; ``rooms``: reverberation;
  ``synthetic_noise``: noises of many kinds.
- ``mix``: the formula that mixes clean sound and noise; ``mixtures``: all mixtures of a set;
  ``pairs``: existing pairs instead of mixtures; ``duplicates``: copies of recordings, found.
- ``building``: decode, split, mix, store; ``workfolder``: where, so that it can be resumed.
- ``records``: pairs written without TensorFlow; ``stored``: datasets saved and loaded with it.
- ``manifest``: the file ``dataset.json``; ``inspection`` and ``inspection_plot``: its contents.

Only ``stored`` and ``inspection_plot``, which uses it, import TensorFlow.

It may import the rooms ``models``, ``audio``, ``spec`` and ``system``.
"""
