import tomllib
from pathlib import Path

import pytest

from denoisecli.errors import UsageError
from denoisecli.system.extras import EXTRAS, require


def test_all_are_extras_of_the_package() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert set(EXTRAS) <= set(project["project"]["optional-dependencies"])


def test_what_is_installed_passes() -> None:
    require("train", "json", "email.message", purpose="training")


def test_a_missing_module_is_reported_in_one_sentence() -> None:
    with pytest.raises(UsageError) as raised:
        require("train", "json", "no_such_module", purpose="training")
    assert str(raised.value) == 'training needs TensorFlow: pip install "denoisecli[train]"'
