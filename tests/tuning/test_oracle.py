import json
from collections.abc import Callable
from typing import Any

import pytest

from denoisecli.spec.document import Spec, parse_spec
from denoisecli.tuning import oracle as module
from denoisecli.tuning.method import Method
from denoisecli.tuning.oracle import Oracle
from denoisecli.tuning.trials import NoTrial, Proposal

Make = Callable[..., Oracle]

SPACE: dict[str, Any] = {
    "training.seed": {"kind": "int", "min": 1, "max": 1000},
    "training.learning_rate": {"kind": "float", "min": 0.001, "max": 0.1, "log": True},
}


def spec_with(space: dict[str, Any], **training: Any) -> Spec:
    return parse_spec(
        {
            "name": "test",
            "downsampling": [{"filters": 4}],
            "upsampling": [{"filters": 4}],
            "training": training,
            "search": {"space": space},
        }
    )


def make(method: Method = Method.RANDOM, *, trials: int = 3, **training: Any) -> Oracle:
    return Oracle(spec_with(SPACE, **training), method, trials=trials, epochs=9)


def propose(oracle: Oracle) -> Proposal:
    proposal = oracle.propose()
    assert isinstance(proposal, Proposal)
    return proposal


def resumed(oracle: Oracle, method: Method) -> Oracle:
    """An oracle of a new process, with the state of this one."""
    other = make(method)
    other.set_state(json.loads(json.dumps(oracle.get_state(), allow_nan=False)))
    return other


@pytest.mark.parametrize("method", [Method.RANDOM, Method.BAYESIAN])
def test_the_spec_as_it_is_comes_first(method: Method) -> None:
    oracle = make(method, seed=7, learning_rate=0.002)
    first = propose(oracle)
    assert first == Proposal("0000", {"training.seed": 7, "training.learning_rate": 0.002})
    assert first.values == oracle.spec_values
    assert propose(oracle).values != first.values


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_every_seed_of_a_spec_is_one_of_the_methods(seed: int) -> None:
    oracle = make(Method.BAYESIAN, trials=5, seed=seed)
    for value in range(4):
        proposal = propose(oracle)
        oracle.report(proposal.name, float(value))


@pytest.mark.slow
@pytest.mark.parametrize("method", Method)
def test_a_resumed_oracle_continues_as_the_first_would(method: Method) -> None:
    oracle = make(method)
    for number in range(5):
        name = propose(oracle).name
        oracle.report(name, None if number == 2 else number / 4)
    ongoing = propose(oracle)
    again = resumed(oracle, method)
    assert again.proposal(ongoing.name) == ongoing
    oracle.report(ongoing.name, 7.0)
    again.report(ongoing.name, 7.0)
    if method != Method.BAYESIAN:  # whose random numbers are not saved
        assert again.propose() == oracle.propose()
    assert propose(again).values != ongoing.values


def test_an_exhausted_space_ends_the_search() -> None:
    space = {"training.seed": {"kind": "choice", "values": [1, 2]}}
    oracle = Oracle(spec_with(space), Method.RANDOM, trials=9, epochs=1)
    values = {propose(oracle).values["training.seed"] for _ in range(2)}
    assert values == {1, 2}
    assert oracle.propose() == NoTrial.DONE


def test_values_of_all_kinds() -> None:
    space: dict[str, Any] = {
        "features.channels": {"kind": "choice", "values": [["magnitude"], ["real", "imaginary"]]},
        "training.early_stopping": {"kind": "choice", "values": [None, 3]},
        "training.augmentation.remix": {"kind": "boolean"},
        "training.batch_size": {"kind": "int", "min": 4, "max": 12, "step": 4},
        "training.learning_rate": {"kind": "float", "min": 1e-4, "max": 1e-2, "log": True},
    }
    options = {"trials": 20, "epochs": 1}
    oracle = Oracle(spec_with(space, batch_size=8), Method.RANDOM, **options)
    assert oracle.spec_values is None  # the spec has another list of channels
    for _ in range(20):
        values = propose(oracle).values
        assert list(values) == list(space)
        assert values["features.channels"] in space["features.channels"]["values"]
        assert values["training.early_stopping"] in (None, 3)
        assert values["training.augmentation.remix"] in (False, True)
        assert isinstance(values["training.augmentation.remix"], bool)
        assert values["training.batch_size"] in (4, 8, 12)
        assert isinstance(values["training.batch_size"], int)
        rate = values["training.learning_rate"]
        assert 1e-4 <= rate <= 1e-2 and rate == float(f"{rate:.6g}")
    space["features.channels"]["values"] = [["real", "imaginary", "magnitude"], ["magnitude"]]
    spec = spec_with(space, batch_size=8, learning_rate=0.00123456789)
    oracle = Oracle(spec, Method.RANDOM, **options)
    assert propose(oracle).values == {
        "features.channels": ["real", "imaginary", "magnitude"],
        "training.early_stopping": spec.training.early_stopping,
        "training.augmentation.remix": True,
        "training.batch_size": 8,
        "training.learning_rate": 0.00123457,
    }
    for outside in ({"batch_size": 6}, {"batch_size": 16}, {"learning_rate": 0.1}):
        spec = spec_with(space, **{"batch_size": 8, **outside})
        assert Oracle(spec, Method.RANDOM, **options).spec_values is None


def test_a_spec_with_several_values_at_a_path_is_not_in_the_space() -> None:
    space = {"downsampling.*.filters": {"kind": "int", "min": 4, "max": 8}}
    document = spec_with(space).model_dump(mode="json")
    document["downsampling"].append(document["downsampling"][0] | {"filters": 8})
    document["upsampling"].append(document["upsampling"][0])
    assert Oracle(parse_spec(document), Method.RANDOM, trials=1, epochs=1).spec_values is None


def test_hyperband_does_not_wait_for_trials_without_an_objective() -> None:
    oracle = make(Method.HYPERBAND, trials=30)
    proposals: dict[str, Proposal] = {}
    objectives: dict[str, float] = {}
    for number in range(13):
        proposal = propose(oracle)
        proposals[proposal.name] = proposal
        objective = float(proposal.values["training.seed"])
        if proposal.continues is None and number % 3 > 0:
            oracle.report(proposal.name, None)
        else:
            objectives[proposal.name] = objective
            oracle.report(proposal.name, objective)
    assert [p.until for p in proposals.values()] == [1] * 9 + [3] * 3 + [9]
    first_round = {name: objectives[name] for name in list(proposals)[:9] if name in objectives}
    best = sorted(first_round, key=lambda name: -first_round[name])
    promoted = list(proposals.values())[9:12]
    assert [p.continues for p in promoted] == best
    assert [p.values for p in promoted] == [proposals[name].values for name in best]


@pytest.mark.slow
def test_a_gaussian_process_takes_no_objective_for_the_worst_one() -> None:
    oracle = make(Method.BAYESIAN, trials=6)
    for objective in [3.0, None, 1.0, None, 2.0]:  # the first four are drawn at random
        oracle.report(propose(oracle).name, objective)
    propose(oracle)
    trials = list(oracle._oracle.trials.values())
    assert [trial.score for trial in trials] == [3.0, 1.0, 1.0, 1.0, 2.0, None]
    oracle.report(trials[-1].trial_id, -5.0)
    propose(oracle)
    assert [trial.score for trial in trials] == [3.0, -5.0, 1.0, -5.0, 2.0, -5.0]


def test_bayesian_optimization_tries_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = make(Method.BAYESIAN, trials=8, seed=7, learning_rate=0.002)
    for _ in range(4):
        oracle.report(propose(oracle).name, 1.0)
    assert oracle.spec_values is not None
    found = dict(oracle.spec_values)
    monkeypatch.setattr(module._Bayesian, "_vector_to_values", lambda self, vector: dict(found))
    for _ in range(2):
        oracle.report(propose(oracle).name, 1.0)
    tried = [trial.hyperparameters.values for trial in oracle._oracle.trials.values()]
    assert len({json.dumps(values) for values in tried}) == len(tried) == 6
    assert oracle._oracle.num_initial_points == 4
