"""Average the weights of two models of one spec into a third.

    python examples/training-speech/average.py FIRST SECOND SHARE FOLDER

SHARE is that of the first; the second gives what is written beside the weights.
"""

import shutil
import sys
from pathlib import Path
from denoisecli.models.registry import load_network
from denoisecli.training.train import write_model

first, second, folder = (Path(sys.argv[number]) for number in (1, 2, 4))
share = float(sys.argv[3])
network = load_network(second / "model.keras")
both = zip(load_network(first / "model.keras").get_weights(), network.get_weights(), strict=True)
network.set_weights([share * a + (1 - share) * b for a, b in both])
shutil.copytree(second, folder)
write_model(network, folder)
