"""Train the model of a spec on a dataset or on recordings, in a run that can be resumed.

Files:

- ``train``: the call that trains, from a spec and a dataset to a model folder
- ``trainer``: the training loop; ``observer`` is the interface by which it reports its progress
- ``batch_source``: the interface of what a model is trained, validated and tested with
- ``batches``, ``segments``, ``dataset_ranges``: batches of a stored dataset
- ``mixed_batches``, ``recordings``: batches that are mixed anew from recordings
- ``stream``: batches that are prepared ahead
- ``augmentation/``: random changes of the training batches
- ``waveform_model``, ``losses/``: the model that is trained, and its losses
- ``optimizer``, ``statistics``: updates of the weights; batch statistics of averaged weights
- ``checkpoint``, ``weights``: the state of a run on disk; weights from one network to another
- ``run_folder``, ``history``, ``tensorboard``: the files of a run, its figures, curves and logs
- ``excerpts``, ``scoring``: a few clips to look at and to hear, and their PESQ and ESTOI
- ``devices``: the CPU, GPUs or processes that train

May import ``datasets``, ``models``, ``audio``, ``spec`` and what lies below them; of
``evaluation`` only its metrics. ``run_folder``, ``history``, ``observer`` and ``devices`` load
neither TensorFlow nor Keras.
"""
