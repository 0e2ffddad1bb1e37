import json
import math
import re
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import librosa
import numpy as np
import pytest

import denoisecli.models
from denoisecli.datasets.recipe import Recipe
from denoisecli.errors import SpecError, UsageError
from denoisecli.models.catalogue import load_spec
from denoisecli.spec.document import Spec, json_schema, parse_spec, save_spec
from denoisecli.spec.network import Bands, ConvolutionBlock, Stft
from denoisecli.spec.search_space import with_values
from denoisecli.spec.training import Augmentation, LossName

ROOT = Path(__file__).parents[2]


def document(**sections: Any) -> dict[str, Any]:
    """The smallest spec there is, with other sections."""
    level = [{"filters": 4}]
    return {"name": "small", "downsampling": level, "upsampling": level, **sections}


def problem(**sections: Any) -> str:
    with pytest.raises(SpecError) as raised:
        parse_spec(document(**sections))
    assert raised.value.exit_code == 2
    return str(raised.value)


@pytest.fixture
def spec_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "spec.json"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("name", ["tiny", "speech", "seed"])
def test_bundled_specs_load(name: str, tmp_path: Path) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec.description
    save_spec(spec, tmp_path / "spec.json")
    assert load_spec(tmp_path) == load_spec(tmp_path / "spec.json")
    assert load_spec(tmp_path) == spec.model_copy(update={"search": None})


def test_defaults_are_written_out(tmp_path: Path) -> None:
    spec = parse_spec(document(valley=[{"block": "attention", "axis": "time"}]))
    save_spec(spec, tmp_path / "spec.json")
    written = json.loads((tmp_path / "spec.json").read_text())
    assert written["stft"] == {"n_fft": 512, "hop_length": 256, "window": "sqrt_hann"}
    assert written["valley"][0]["heads"] == spec.valley[0].heads
    assert written["training"]["augmentation"]["snr_db"] == "dataset"
    assert set(written) == set(Spec.model_fields) - {"search"}
    assert load_spec(tmp_path) == spec
    assert parse_spec(written) == spec


def test_an_integer_stands_for_both_axes_as_in_keras() -> None:
    level = {"filters": 4, "kernel_size": 5, "strides": 2}
    block = {"block": "convolution", "filters": 4, "dilation": 3}
    spec = parse_spec(document(downsampling=[level], valley=[block]))
    assert (spec.downsampling[0].kernel_size, spec.downsampling[0].strides) == ((5, 5), (2, 2))
    assert isinstance(spec.valley[0], ConvolutionBlock) and spec.valley[0].dilation == (3, 3)
    assert parse_spec(spec.model_dump(mode="json")) == spec


def test_a_loss_has_the_weight_one_by_default() -> None:
    losses = ["si_sdr", {"kind": "waveform_l1"}, {"kind": "perceptual", "weight": 0.5}]
    spec = parse_spec(document(training={"losses": losses}))
    assert [(loss.kind, loss.weight) for loss in spec.training.losses] == [
        ("si_sdr", 1.0),
        ("waveform_l1", 1.0),
        ("perceptual", 0.5),
    ]
    assert problem(training={"losses": [3]}).startswith(
        'training.losses[0]: must be an object or one of "compressed_magnitude", '
    )


def test_misspelt_keys() -> None:
    training = {"augmentation": {"snr": [0.0, 1.0]}, "bach_size": 3}
    message = problem(training=training, modell="unet")
    assert message.startswith("3 problems:\n")
    assert "training.augmentation.snr: unknown key" in message
    assert "training.bach_size: unknown key; did you mean 'batch_size'? allowed: losses," in message
    assert "  modell: unknown key; did you mean 'model'?" in message

    hint = "stft.hop: unknown key; did you mean 'hop_length'? allowed: n_fft, hop_length, window"
    assert problem(stft={"hop": 128}) == hint

    level = {"filters": 4, "convolution": 2}  # which is also the name of a kind of block
    allowed = "allowed: filters, kernel_size, convolutions,"
    message = problem(downsampling=[{"filters": 4}, level])
    assert message.startswith("downsampling[1].convolution: unknown key; did you mean 'convo")
    assert allowed in message
    for block, key in (("convolution", "convolution"), ("recurrent", "unit"), ("attention", "key")):
        valid = {"filters": 4} if block == "convolution" else {"axis": "time"}
        if block == "recurrent":
            valid["units"] = 4
        message = problem(valley=[{"block": block, **valid, key: 3}])
        assert message.startswith(f"valley[0].{key}: unknown key; did you mean '{key}")
        assert "allowed: block, axis" in message or allowed in message


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"training": {"batch_size": "16"}},
            'training.batch_size: must be an integer, from 1 to 4096, found "16"$',
        ),
        (
            {"training": {"batch_size": 16.5}},
            "training.batch_size: must be an integer, from 1 to 4096, found 16.5$",
        ),
        (
            {"training": {"seed": True}},
            "training.seed: must be an integer, at least 0 and less than 4294967296, found true$",
        ),
        ({"training": {"seed": 2**32}}, "training.seed: .*less than 4294967296"),
        (
            {"training": {"losses": []}},
            "training.losses: must be a list of objects, at least 1 element, found \\[\\]$",
        ),
        (
            {"training": {"losses": [{"kind": "mse", "weight": 1}]}},
            'losses.0..kind: must be one of .*"si_sdr".*, found "mse"$',
        ),
        ({"audio": None}, "audio: must be an object, found null$"),
        ({"stft": []}, "stft: must be an object"),
        ({"stft": {"n_fft": 513}}, "stft.n_fft: .*multiple of 2, found 513"),
        ({"stft": {"window": "kaiser"}}, 'stft.window: must be one of "hann", .*, found "kaiser"$'),
        (
            {"features": {"compression": math.nan}},
            "features.compression: must be a number, .* at most 1, found NaN$",
        ),
        ({"output": {"limit": math.inf}}, "output.limit: .*at most 100, found Infinity$"),
        ({"output": {"limit": 1}}, "output.limit: .*greater than 1 and at most 100, found 1$"),
        ({"output": {"mask": "magnitude", "past_taps": 1}}, "output: .*need the mask 'complex'"),
        ({"causal": True, "output": {"future_taps": 2}}, "output.future_taps: a causal .*found 2$"),
        (
            {"downsampling": {"filters": 4}},
            'downsampling: must be a list of objects, .*, found {"filters": 4}$',
        ),
        ({"downsampling": [{}]}, "^downsampling.0..filters: missing, but required$"),
        (
            {"downsampling": [{"filters": 4, "strides": 2.5}]},
            "downsampling.0..strides: .*, found 2.5",
        ),
        (
            {"downsampling": [{"filters": 4, "strides": [2]}]},
            r"strides: must be \[integer, integer\] or an integer, from 1 to 255, found \[2\]",
        ),
        (
            {"downsampling": [{"filters": 4, "strides": [2, 1, 1]}]},
            r"downsampling.0..strides: .*, found \[2, 1, 1\]$",
        ),
        (
            {"valley": [{"filters": 4}]},
            "valley.0..block: missing, but required; allowed: att.*, conv",
        ),
        ({"valley": [{"block": "lstm"}]}, 'valley.0..block: found "lstm"; allowed: .*, recurrent'),
        (
            {"training": {"augmentation": {"speed": 1.1}}},
            "speed: must be a number, from 0 to 1, found 1.1$",
        ),
        (
            {"training": {"augmentation": {"speed_range": [0.9, 2]}}},
            r"augmentation.speed_range\[1\]: must be a number, from 0.5 to 1.5, found 2$",
        ),
        ({"training": {"augmentation": {"clipping_db": [-3, 1]}}}, r"clipping_db\[1\]: .*found 1$"),
        (
            {"training": {"augmentation": {"target_highpass_hz": 0}}},
            "_hz: must be a number or null, greater than 0 and at most 1000, found 0$",
        ),
        ({"name": "../up"}, 'name: must be a string, matching .*, found "../up"$'),
        ({"name": "x" * 101}, "name: must be a string, .* and at most 100 characters long, found"),
    ],
)
def test_wrong_values(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as raised:
        parse_spec(document(**sections))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("value", [[], "tiny", None, 3])
def test_what_is_not_an_object(value: Any) -> None:
    with pytest.raises(SpecError, match=r"^the spec: must be an object, found "):
        parse_spec(value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"stft": {"n_fft": 64, "hop_length": 33}}, "^stft: hop_length 33 leaves gaps.* 32$"),
        ({"upsampling": [{"filters": 4}] * 2}, "^upsampling: 2 levels cannot mirror the 1 of"),
        (
            {
                "stft": {"n_fft": 16, "hop_length": 8},
                "downsampling": [{"filters": 4, "strides": [4, 1]}] * 3,
                "upsampling": [{"filters": 4}] * 3,
            },
            r"^downsampling\[1\]: only 3 frequency bands arrive here, a frequency stride of 4",
        ),
        (
            {
                "downsampling": [{"filters": 8}, {"filters": 16}],
                "upsampling": [{"filters": 9}, {"filters": 4, "skip": "add"}],
            },
            r"^upsampling\[1\]: skip 'add' needs equal filters, but 9 meet the 8 of down",
        ),
        (
            {
                "valley": [{"block": "convolution", "filters": 5}],
                "upsampling": [{"filters": 4, "skip": "add"}],
            },
            r"^upsampling\[0\]: .*but 5 meet the 4 of downsampling\[0\]",
        ),
        (
            {
                "downsampling": [{"filters": 4, "pooling": "max"}],
                "upsampling": [{"filters": 5, "skip": "add"}],
            },
            r"^upsampling\[0\]: .*but 5 meet the 4 of downsampling\[0\]",
        ),
        ({"output": {"expander": {}}}, '^output: an expander needs the gain: add "gain": true$'),
        (
            {"output": {"gain": True, "expander": {"above_hz": 8000.0}}},
            "^output.expander: no band lies above 8000 Hz; it must be less than 8000$",
        ),
        ({"features": {"bands": {"above_hz": 8000.0}}}, "above_hz 8000 leaves no bins to merge"),
        ({"features": {"bands": {"count": 400}}}, "^features.bands: 400 bands above 2000 Hz are"),
        (
            {"causal": True, "downsampling": [{"filters": 4, "strides": [2, 2]}]},
            r"^downsampling\[0\]: a causal model cannot stride along time \(found 2\)",
        ),
        (
            {"causal": True, "valley": [{"block": "recurrent", "axis": "time", "units": 2}]},
            r"^valley\[0\]: a causal model cannot be bidirectional along time",
        ),
        (
            {"causal": True, "valley": [{"block": "attention", "axis": "time"}]},
            r"^valley\[0\]: a causal model cannot attend along time",
        ),
        ({"training": {"augmentation": {"level_dbfs": [-10, -20]}}}, r"level_dbfs: .*\[-10.*-20"),
        ({"training": {"augmentation": {"rt60_seconds": [0.5, 0.1]}}}, r"rt60_seconds: the range"),
        (
            {"training": {"augmentation": {"low_cut_hz": [50, 3000]}}},
            "low_cut_hz up to 3000 and high_cut_hz from 2000 must not overlap",
        ),
        (
            {"training": {"augmentation": {"clean_only": 0.6, "noise_only": 0.6}}},
            "training.augmentation: the sum of clean_only and noise_only must be at most 1",
        ),
    ],
)
def test_what_cannot_be_built(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_spec(document(**sections))


def test_skips_may_be_added_to_equal_filters() -> None:
    sections = {
        "downsampling": [{"filters": 8}, {"filters": 16}],
        "valley": [{"block": "convolution", "filters": 16}],
        "upsampling": [{"filters": 8, "skip": "add"}, {"filters": 4, "skip": "add"}],
    }
    assert parse_spec(document(**sections)).total_strides == (4, 1)


def test_suggested_number_of_bands_is_the_largest() -> None:
    message = problem(features={"bands": {"count": 400}})
    possible = int(message.split("about ")[1].split()[0])
    parse_spec(document(features={"bands": {"count": possible}}))
    problem(features={"bands": {"count": possible + 1}})


@pytest.mark.parametrize("kind", ["erb", "mel"])
@pytest.mark.parametrize("count", [1, 2, 32])
def test_bands(kind: str, count: int) -> None:
    spec = parse_spec(document(features={"bands": {"kind": kind, "count": count}}))
    assert spec.kept_bins == 65  # 0 to 2000 Hz in steps of 31.25 Hz
    assert spec.feature_bands == 65 + count
    positions = np.array(spec.band_positions)
    assert positions.size == 257 - 65
    assert positions[0] == 0
    assert positions[-1] == pytest.approx(count - 1)
    if count > 1:
        assert (np.diff(positions) > 0).all()
        assert (np.diff(positions, 2) < 0).all()  # the higher, the wider are the bands
    assert parse_spec(document()).band_positions == []


@pytest.mark.parametrize("bands", [None, {"count": 32}, {"count": 1}])
@pytest.mark.parametrize("above_hz", [0, 500, 510, 2000, 3333.3, 7999])
def test_the_expander_begins_with_the_first_band_above_its_frequency(
    bands: dict[str, int] | None, above_hz: float
) -> None:
    output = {"gain": True, "expander": {"above_hz": above_hz}}
    spec = parse_spec(document(features={"bands": bands}, output=output))
    bins = np.arange(spec.stft.bins) * spec.audio.sample_rate / spec.stft.n_fft
    hertz = bins
    if bands is not None:
        centres = np.interp(range(bands["count"]), spec.band_positions, bins[spec.kept_bins :])
        hertz = np.concatenate([bins[: spec.kept_bins], centres])
    assert hertz[spec.expanded_band] >= above_hz
    assert (hertz[: spec.expanded_band] <= above_hz).all()


def test_bands_lie_on_the_mel_scale() -> None:
    bands = Bands(kind="mel", count=20, above_hz=1000.0)
    spec = parse_spec(document(features={"bands": bands.model_dump(mode="json")}))
    centres = librosa.mel_frequencies(20, fmin=1031.25, fmax=8000.0, htk=True)
    bins = np.arange(spec.kept_bins, spec.stft.bins) * 31.25
    expected = np.interp(bins, centres, np.arange(20))
    np.testing.assert_allclose(spec.band_positions, expected, atol=0.02)


def test_the_monitored_metric_is_measured() -> None:
    monitoring = {"monitor": "val_pesq", "perceptual_every": 5, "early_stopping": 5}
    assert parse_spec(document(training=monitoring)).training.monitor == "val_pesq"
    message = problem(training={"monitor": "val_estoi"})
    assert message == "training: monitor 'val_estoi' needs perceptual_every"
    message = problem(training={**monitoring, "early_stopping": 4})
    assert message.startswith("training: early_stopping 4 stops before 'val_pesq' is")


def test_schema_key_is_tolerated(spec_file: Callable[[str], Path]) -> None:
    path = spec_file("\ufeff" + json.dumps({"$schema": "spec.schema.json", **document()}))
    assert load_spec(path) == parse_spec(document())
    assert "$schema" in problem(stft={"$schema": "x"})


def test_a_class_of_ones_own_needs_no_levels_and_may_have_options(tmp_path: Path) -> None:
    spec = parse_spec({"name": "x", "model": "mine.nets:Small", "options": {"width": [4, None]}})
    save_spec(spec, tmp_path / "spec.json")
    assert load_spec(tmp_path) == spec
    assert with_values(spec, {"options.width": 5}).options == {"width": 5}
    assert problem(model="resnet").startswith('model: must be one of "unet" or a string, of the fo')
    assert problem(options={"width": 4}) == "options: the class unet has none, found width"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n  "name": "x",\n}', "not JSON: .* at line (2|3), column"),
        ("", "not JSON: Expecting value at line 1, column 1"),
        ("[" * 100_000, "not JSON"),
        ("1" * 5000, "not JSON"),
        ('{"name": "x"}', "2 problems:\n  downsampling: missing, but required\n  upsampling: miss"),
    ],
)
def test_files_without_a_valid_spec(
    spec_file: Callable[[str], Path], text: str, message: str
) -> None:
    path = spec_file(text)
    with pytest.raises(SpecError, match=message) as raised:
        load_spec(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "sound.wav"
    path.write_bytes(b"RIFF\xff\xfe\xfd\x00")
    with pytest.raises(SpecError, match=r"sound.wav: cannot be read as text"):
        load_spec(path)


def test_unknown_specs(tmp_path: Path) -> None:
    for source in (tmp_path, "speach"):
        with pytest.raises(SpecError, match=r"no spec '.*': neither .*\(seed, speech, .*tiny\)"):
            load_spec(source)
    with pytest.raises(SpecError, match=r"missing\.json does not exist$"):
        load_spec(tmp_path / "missing.json")


def test_a_spec_cannot_be_changed() -> None:
    spec = parse_spec(document())
    with pytest.raises(ValueError, match="frozen"):
        spec.training.epochs = 3
    assert hash(spec) == hash(parse_spec(document()))


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """All sections of a JSON Schema, all references followed."""
    if isinstance(schema, dict):
        yield schema
    for value in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(value, dict | list):
            yield from objects(value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"downsampling": [{"filters": 10**30}]},
            "filters: must be an integer, from 1 to 4096",
        ),
        (
            {"downsampling": [{"filters": 4, "kernel_size": [99999, 99999]}]},
            r"kernel_size\[0\]: must be an integer, from 1 to 255, found 99999",
        ),
        (
            {"downsampling": [{"filters": 4096, "kernel_size": 255, "convolutions": 16}]},
            "^the network has about .* million weights, more than 500 million; use fewer filters",
        ),
        (
            {
                "downsampling": [{"filters": 4096, "kernel_size": 1}] * 2,
                "upsampling": [
                    {"filters": 4096, "kernel_size": 1, "upsampling_size": 255},
                    {"filters": 4},
                ],
            },
            "^the network has about .* million weights, more than 500 million; use fewer filters",
        ),
        (
            {"training": {"augmentation": {"snr_db": [-5000.0, -4000.0]}}},
            r"^training.augmentation.snr_db: must be .*, from -100 to 100, found \[-5000",
        ),
        ({"training": {"epochs": 10**12}}, "epochs: must be an integer, from 1 to 1000000, found"),
        ({"audio": {"sample_rate": 400_000}}, "sample_rate: must be .*from 1000 to 384000, found"),
        ({"name": "x" * 101}, "name: must be"),
        (
            {"training": {"batch_size": 4096, "segment_seconds": 60}},
            "a batch of 4096 segments of 60 s at 16000 Hz has 3932 million samples, more than 1000",
        ),
    ],
)
def test_absurd_sizes_are_refused_with_the_limit(sections: dict[str, Any], message: str) -> None:
    assert re.search(message, problem(**sections))


def test_one_range_of_sample_rates_for_datasets_and_models() -> None:
    assert parse_spec(document(audio={"sample_rate": 384_000})).audio.sample_rate == 384_000
    assert Recipe(ratio=0.2, sample_rate=384_000).sample_rate == 384_000
    with pytest.raises(UsageError, match="384000"):
        Recipe(ratio=0.2, sample_rate=384_001)
    with pytest.raises(UsageError, match=r"the SNR must be within -100..100 dB"):
        Recipe(snr_db=(-5000.0, -4000.0))


def test_augmentations_that_came_later_are_off() -> None:
    first = {"remix", "clean_only", "noise_only", "equalization_db"}
    for name, field in Augmentation.model_fields.items():
        if name not in first and not isinstance(field.default, tuple):
            assert field.default == "dataset" or not field.default, name


def test_json_schema() -> None:
    schema = json.loads(json.dumps(json_schema(), allow_nan=False))
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["required"] == ["name"]
    assert schema["if"] == {"properties": {"model": {"const": "unet"}}}
    assert schema["then"]["required"] == ["downsampling", "upsampling"]
    assert set(schema["properties"]) == {"$schema", *Spec.model_fields}
    names = {part["$ref"].removeprefix("#/$defs/") for part in objects(schema) if "$ref" in part}
    assert names == set(schema["$defs"])
    for section in (schema, *schema["$defs"].values()):
        assert section["additionalProperties"] is False
    stft = schema["$defs"]["Stft"]["properties"]
    assert stft["n_fft"]["default"] == Stft().n_fft
    assert stft["window"]["enum"] == list(get_args(Stft.model_fields["window"].annotation))
    named, own = schema["$defs"]["Loss"]["properties"]["kind"]["anyOf"]
    assert named["enum"] == list(get_args(LossName))
    assert own["format"] == "module:name"
    levels = schema["$defs"]["Augmentation"]["properties"]["level_dbfs"]
    assert levels["default"] == Augmentation().level_dbfs == "dataset"


def test_published_schema_is_current() -> None:
    """`denoise spec --schema > models/spec.schema.json` brings it up to date."""
    published = Path(denoisecli.models.__file__).parent / "spec.schema.json"
    assert json.loads(published.read_text()) == json_schema()


def test_reference_is_current() -> None:
    """`python docs/make_spec.py` brings it up to date."""
    render = runpy.run_path(str(ROOT / "docs/make_spec.py"))["render"]
    assert (ROOT / "docs/spec.md").read_text() == render()


def test_example_of_the_reference_is_valid() -> None:
    example = (ROOT / "docs/spec.md").read_text().split("```json\n")[1].split("```")[0]
    assert parse_spec(json.loads(example)).name == "my-model"


EXAMPLES = ROOT / "examples"


@pytest.mark.parametrize(
    "path", sorted(EXAMPLES.glob("training-speech/*.json")), ids=lambda path: path.stem
)
def test_specs_of_the_examples_are_valid(path: Path) -> None:
    stage = load_spec(path).name.removeprefix("speech-")
    assert f"{path.stem}-".startswith(f"{stage}-")


def test_every_change_of_the_study_changes_something() -> None:
    study = json.loads((EXAMPLES / "ablations/study.json").read_text())
    base = with_values(load_spec(study["spec"]), study["values"])
    variants = [with_values(base, values) for values in study["changes"].values()]
    assert all(variant != base for variant in variants)
    assert len({variant.model_dump_json() for variant in variants}) == len(variants) >= 20


def test_separable_convolutions_have_few_weights() -> None:
    level = {"filters": 512, "kernel_size": 7, "kind": "depthwise_separable", "convolutions": 8}
    assert parse_spec(document(downsampling=[level] * 3, upsampling=[level] * 3))
