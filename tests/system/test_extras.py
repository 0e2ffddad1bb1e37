from importlib.metadata import metadata

import pytest

from denoisecli.errors import UsageError
from denoisecli.system.extras import EXTRAS, require


def test_all_are_extras_of_the_package() -> None:
    assert set(EXTRAS) <= set(metadata("denoisecli").get_all("Provides-Extra") or ())


def test_what_is_installed_passes() -> None:
    require("train", "json", "email.message", purpose="training")


def test_a_missing_module_is_reported_in_one_sentence() -> None:
    with pytest.raises(UsageError) as raised:
        require("train", "json", "no_such_module", purpose="training")
    assert str(raised.value) == "training needs TensorFlow: pip install 'denoisecli[train]'"
