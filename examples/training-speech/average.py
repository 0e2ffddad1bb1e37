"""Average the weights of two models of one spec into a third.

    python examples/training-speech/average.py FIRST SECOND SHARE FOLDER

SHARE is the weight of the first model. The other files of the new folder are copies of the second's.
"""

import shutil
import sys
from pathlib import Path

from denoisecli.models.folder import ModelFolder

first, second, target = (ModelFolder(Path(sys.argv[number])) for number in (1, 2, 4))
share = float(sys.argv[3])
network = second.load_network()
both = zip(first.load_network().get_weights(), network.get_weights(), strict=True)
network.set_weights([share * a + (1 - share) * b for a, b in both])
shutil.copytree(second.path, target.path)
target.write_network(network)
