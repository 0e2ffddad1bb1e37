from typing import Any

import pytest

from denoisecli.errors import SpecError
from denoisecli.spec.document import Spec, parse_spec
from denoisecli.spec.search_space import check_space, values_at, with_values

RECURRENT = {"block": "recurrent", "axis": "time", "units": 8}


def spec_of(space: dict[str, Any] | None = None, **sections: Any) -> Spec:
    spec = parse_spec(
        {
            "name": "searched",
            "downsampling": [{"filters": 4}, {"filters": 8}],
            "valley": [{"block": "convolution", "filters": 8}, RECURRENT, RECURRENT],
            "upsampling": [{"filters": 4}, {"filters": 4}],
            **({"search": {"space": space}} if space is not None else {}),
            **sections,
        }
    )
    check_space(spec)
    return spec


def choice(*values: Any) -> dict[str, Any]:
    return {"kind": "choice", "values": list(values)}


def error_of(space: dict[str, Any], **sections: Any) -> str:
    with pytest.raises(SpecError) as raised:
        spec_of(space, **sections)
    return str(raised.value)


def filters(spec: Spec) -> list[int]:
    return [level.filters for level in (*spec.downsampling, *spec.upsampling)]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("downsampling.0.filters", [16, 8, 4, 4]),
        ("downsampling.*.filters", [16, 16, 4, 4]),
        ("*sampling.*.filters", [16, 16, 16, 16]),
        ("*sampling.1.filters", [4, 16, 4, 16]),
    ],
)
def test_a_path_names_one_field_or_many(path: str, expected: list[int]) -> None:
    assert filters(with_values(spec_of(), {path: 16})) == expected


def test_elements_without_the_field_are_left_alone() -> None:
    spec = with_values(spec_of(), {"valley.*.units": 3})
    assert [getattr(block, "units", None) for block in spec.valley] == [None, 3, 3]
    assert values_at(spec, "valley.*.units") == [3, 3]


def test_values_of_all_kinds_leave_the_rest_as_it_was() -> None:
    searched = spec_of({"valley.1.bidirectional": {"kind": "boolean"}})
    values = {
        "training.learning_rate": 0.5,
        "features.bands": {"kind": "mel", "count": 20, "above_hz": 1000},
        "features.channels": ["magnitude"],
        "downsampling.1.kernel_size.0": 5,
        "training.early_stopping": None,
    }
    spec = with_values(searched, values)
    assert spec.search is None
    assert spec.training.learning_rate == 0.5
    assert spec.features.bands is not None and spec.features.bands.count == 20
    assert spec.features.channels == ("magnitude",)
    assert spec.downsampling[1].kernel_size == (5, 3)
    assert with_values(spec, {p: values_at(spec_of(), p)[0] for p in values}) == spec_of()


def test_paths_that_match_nothing() -> None:
    message = error_of({"training.learning_rat": choice(0.1, 0.2)})
    assert message.startswith("search.space.training.learning_rat: no 'learning_rat' in the spec;")
    assert "did you mean 'learning_rate'? allowed: losses, batch_size" in message
    assert "no '7' in the spec; allowed: 0, 1" in error_of({"upsampling.7.filters": choice(1, 2)})
    assert "no 'count' in the spec" in error_of({"features.bands.count": choice(8, 16)})
    assert "no 'search' in the spec" in error_of({"search.max_macs": choice(8, 16)})


@pytest.mark.parametrize(
    ("path", "searched", "message"),
    [
        ("training.epochs", choice(3, 0), "0 is not allowed: training.epochs: .*from 1 to 1000000"),
        ("training.epochs", choice(3, "4"), '"4" is not allowed: .*an integer'),
        (
            "training.epochs",
            {"kind": "float", "min": 1.0, "max": 3.5},
            "1.0 is not allowed: .*integer",
        ),
        ("training.epochs", {"kind": "boolean"}, "false is not allowed: .*an integer"),
        (
            "stft.n_fft",
            {"kind": "int", "min": 512, "max": 1024},
            "513 is not allowed: .*multiple of 2",
        ),
        ("stft.n_fft", {"kind": "int", "min": 8, "max": 512, "step": 8}, "8 is not allowed: .*16"),
        ("training.learning_rate", {"kind": "float", "min": 0.1, "max": 2}, "2.0 is not allowed"),
        ("training.monitor", choice("val_loss", "loss"), '"loss" is not allowed: .*val_loss'),
        (
            "stft.hop_length",
            choice(128, 300),
            "300 is not allowed: stft: hop_length 300 leaves gaps",
        ),
        (
            "causal",
            {"kind": "int", "min": 3, "max": 2},
            "from 3 to 2 holds no second value at a step of 1",
        ),
        (
            "causal",
            {"kind": "float", "min": 0, "max": 1, "log": True},
            "min must be greater than 0 on a log",
        ),
        ("causal", {"kind": "float", "min": 1, "max": 1}, "min 1 must be less than max 1"),
        ("causal", choice(True), "at least 2"),
        ("causal", {"kind": "bool"}, 'kind: found "bool"; allowed: boolean, choice, float, int'),
        ("causal", {"values": [1, 2]}, "kind: missing, but required; allowed: boolean, choice"),
        ("causal", {"kind": "choice", "value": [1, 2]}, "unknown key; did you mean 'values'"),
    ],
)
def test_ranges_that_are_not_allowed(path: str, searched: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as raised:
        spec_of({path: searched})
    assert f"search.space.{path}" in str(raised.value)


def test_what_may_fit_together_is_left_to_the_trials() -> None:
    """Neither fits the other's value in the spec, but some of both fit each other."""
    add = {"upsampling": [{"filters": 8, "skip": "add"}, {"filters": 4}]}
    levels = choice(8, 16)
    assert "skip 'add' needs equal filters" in error_of({"valley.0.filters": levels}, **add)
    spec = spec_of({"valley.0.filters": levels, "downsampling.1.filters": levels}, **add)
    both = {"valley.0.filters": 16, "downsampling.1.filters": 16}
    assert filters(with_values(spec, both)) == [4, 16, 8, 4]
    with pytest.raises(SpecError, match="skip 'add' needs equal filters"):
        with_values(spec, {"valley.0.filters": 16})


def test_two_paths_cannot_set_the_same_field() -> None:
    levels = choice(8, 16)
    message = error_of({"downsampling.*.filters": levels, "downsampling.1.filters": levels})
    assert message == (
        "search.space.downsampling.1.filters: downsampling.*.filters sets the same field; "
        "remove one of them"
    )


def test_objective_and_limits() -> None:
    space = {"valley.1.bidirectional": {"kind": "boolean"}}
    spec = spec_of(search={"space": space})
    assert spec.search is not None
    assert (spec.search.objective, spec.search.direction) == ("val_si_sdr_improvement", "max")
    spec = spec_of(search={"space": space, "objective": "val_loss", "max_macs": 3e6})
    assert spec.search is not None
    assert (spec.search.direction, spec.search.max_macs) == ("min", 3e6)
    for wrong, message in (
        ({"space": {}}, "search.space: .*at least 1 key"),
        ({"space": space, "objective": "loss"}, 'search.objective: .*"val_loss"'),
        ({"space": space, "objective": "val_pesq"}, "'val_pesq' needs training.perceptual_every"),
        ({"space": space, "max_macs": 0}, "search.max_macs: .*greater than 0"),
        ({"space": space, "max_mac": 1}, "search.max_mac: unknown key; did you mean 'max_macs'"),
    ):
        with pytest.raises(SpecError, match=message):
            spec_of(search=wrong)
