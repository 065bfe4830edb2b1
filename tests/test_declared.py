import dataclasses

import pytest

from bench import declared, plugins
from bench.contract import Control, Metric
from tasks.catalog import TASKS
from tasks.training.recipe import Recipe

OWN = [n for n, plugin in plugins.generators().items() if plugin.target.startswith("generators.")]
FACTS = ("needs", "needs_where", "deterministic", "presets", "amplitudes", "share_of_models", "made_of", "broken_from",
         "aligned_too", "has_latents", "has_path")  # fmt: skip
OF_TASKS = ("kind", "metric", "compared", "presets")


def defaults(cls):
    """Fields with plain defaults."""
    return {
        field.name: field.default
        for field in dataclasses.fields(cls)
        if field.name in cls.setting_names() and field.default is not dataclasses.MISSING
    }


@pytest.mark.parametrize("name", OWN)
def test_what_is_read_of_a_generator_is_what_it_has(name):
    cls = plugins.load_generator(name)
    found = declared.generator(name)
    assert found.fields == defaults(cls)
    assert {fact: found.facts[fact] for fact in FACTS} == {
        fact: getattr(cls, fact) for fact in FACTS
    }
    assert declared.generator(plugins.generators()[name].target) == found


def test_what_a_generator_uses_may_depend_on_its_hyperparameters():
    made = declared.Declared(
        {}, {"needs": ["score", "train"], "needs_where": {"score": {"by": ["score", "both"]}}}
    )
    assert made.uses({"by": "both"}) == ("score", "train")
    assert made.uses({"by": "nothing"}) == ("train",)
    assert declared.Declared({}, {}).uses({}) is None


@pytest.mark.parametrize("name", TASKS)
def test_what_is_read_of_a_task_is_what_it_has(name):
    cls = plugins.task_class(name)
    found = declared.task(name)
    assert found.fields == defaults(cls)
    own = [fact for fact in OF_TASKS if fact != "metric" or isinstance(cls.metric, Metric)]
    assert {fact: found.facts.get(fact) for fact in own} == {
        fact: getattr(cls, fact) for fact in own
    }
    assert ("metric" in found.facts) is isinstance(cls.metric, Metric)
    assert declared.task(TASKS[name].target) == found


def test_training_has_the_defaults_that_are_read():
    assert declared.recipe() == dataclasses.asdict(Recipe())


def test_what_controls_are_made_of():
    made = {str(one): declared.made_of(one) for one in (*declared.controls(), *declared.twins())}
    by_kind = {kind: {name for name in made if made[name] == kind} for kind in made.values()}
    copies = {"noise 0.003", "noise 0.01", "noise 0.03", "noise 0.1", "noise 0.3", "noise 1"}
    both = {"average", "full_gaussian", "gaussian", "greedy_soup", "interpolation", "low_rank_gaussian", "mean_of_two",
            "step"}  # fmt: skip
    assert by_kind == {
        "copies": {"copy", *copies},
        "averages": both | {f"aligned {name}" for name in both},
        "broken": {"shuffled", "noise 3", "noise 10"},
        "": {"finetune"},
    }
    assert declared.made_of(Control("mine")) == ""


def test_nothing_is_known_of_others():
    assert declared.generator("my_package.module:Class") is None
    assert declared.task("my_package.module:Class") is None
    assert declared.task("nothing") is None
