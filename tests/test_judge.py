"""The judgement of populations whose origin is known, and the word of rule 2 that follows from its numbers."""

import dataclasses
import functools
from dataclasses import replace

import pytest
import torch

from bench.contract import Control, Metric
from bench.contract.zoo import Layout, Zoo
from bench.judge.align import align, groups
from bench.judge.composition import against_reference
from bench.judge.population import GENERATED, ORIGINAL, REFERENCE, Origin, Population
from bench.records import judged, report, verdict
from bench.records.fields import Interval
from bench.records.judged import KINDS, Composition, CopyTest, Judgement
from bench.records.verdict import Evidence, doubts, word
from bench.runs.calibrate import permuted
from bench.system.randomness import generator, scoped
from tests.networks import Shape, build
from tests.records import parsed
from tests.test_record import valid
from tests.test_schema1 import population as numbers

ACCURACY = Metric("accuracy", scale=100, mean_over_units=True)
AVERAGE, NOISE = Control("average"), Control("noise", 3.0)
DIM = 30


# Populations of known origin -----------------------------------------------------------------------------------------


def draw(n, seed, dim=DIM):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def population(origin, points, scores=None):
    """Models whose outputs and weights are both these points, unless weights are given as a pair's second."""
    outputs, weights = points if isinstance(points, tuple) else (points, points)
    val = 0.9 - 0.01 * outputs[:, 0].abs().double() if scores is None else scores
    return Population(
        origin, val, wrong=None, features=outputs.abs(), outputs=outputs, weights=weights
    )


ZOO = draw(40, 0)
CONTROLS = {
    Control("copy"): ZOO[:20],
    AVERAGE: ZOO.mean(0, keepdim=True),
    Control("interpolation"): torch.stack([ZOO[i::5][:8].mean(0) for i in range(5)] * 4),
    Control("gaussian"): ZOO.mean(0) + 0.4 * draw(60, 1),
    NOISE: ZOO[:30] + 3 * draw(30, 2),
}


def judge(generated, held=None, seed=0, scores=None, metric=ACCURACY, controls=CONTROLS):
    """Judge models beside one zoo, its controls and 100 reference models; None: without a reference."""
    held = draw(100, 103) if held is None else held
    populations = [population(ORIGINAL, ZOO), population(GENERATED, generated, scores)]
    if len(held):
        populations.append(population(REFERENCE, held))
    populations += [population(Origin.of(one), points) for one, points in controls.items()]
    return against_reference(populations, metric, torch.Generator().manual_seed(seed))


@functools.cache
def usual():
    """The judgement of models that are drawn as the reference was."""
    return judge(draw(100, 104))


def called(against, name="generated", lost=0.0, models=100):
    """The word of a population, as of the generated models."""
    return word(
        Evidence(lost, models, against.models, against.judgements[name], against.resolution)
    )


def drawn(points, seed, n=100):
    return points[torch.randint(len(points), (n,), generator=torch.Generator().manual_seed(seed))]


def test_models_of_the_references_own_distribution_are_novel():
    against = usual()
    found = against.judgements["generated"]
    assert called(against) == "novel"
    assert found.composition.new.value > 0.8
    assert found.composition.new.low > 0.5
    assert abs(found.composition.residual) < 0.05
    assert found.composition.p > 0.05
    assert found.copying.p > 0.05
    assert found.variety.distance.low < 1 < found.variety.distance.high
    assert min(found.fidelity.outputs, found.fidelity.weights) > 0.05
    low, high = found.quality.difference.low, found.quality.difference.high
    assert low < 0 < high
    assert against.models == 100
    assert against.resolution > 0.5


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_copies_are_copies(noise):
    against = judge(drawn(ZOO, 5) + noise * draw(100, 6))
    found = against.judgements["generated"]
    assert called(against) == "copies"
    assert found.composition.copies.value > 0.8
    assert found.copying.nearer == 100
    assert found.copying.p < 1e-10
    assert found.fidelity.outputs == pytest.approx(0.001)


def test_averages_are_averages():
    rng = torch.Generator().manual_seed(7)
    means = torch.stack([ZOO[torch.randperm(40, generator=rng)[:16]].mean(0) for _ in range(100)])
    against = judge(means)
    found = against.judgements["generated"]
    assert called(against) == "averages"
    assert found.composition.averages.value > 0.8
    assert found.variety.distance.high < 0.6
    assert found.variety.vendi.high < 1
    assert found.span_residual is None  # fewer parameters than checkpoints


def test_what_noise_has_ruined_is_broken():
    against = judge(drawn(ZOO, 8) + 3 * draw(100, 9))
    assert against.judgements["generated"].composition.broken.value > 0.5
    assert called(against) == "broken"
    assert called(against, lost=0.51) == "broken"


def test_few_copies_among_new_models_are_found_by_the_copy_test():
    against = judge(torch.cat([drawn(ZOO, 10, 15) + 0.02 * draw(15, 11), draw(85, 12)]))
    found = against.judgements["generated"]
    assert found.composition.new.value > 0.5
    assert found.copying.nearer >= 15
    assert called(against) == "undecided"


def test_what_nothing_known_reproduces_is_undecided():
    against = judge(draw(100, 13) + 2.0)
    found = against.judgements["generated"]
    assert found.composition.residual > verdict.MISFIT
    assert found.composition.p == pytest.approx(1 / 201)
    assert called(against) == "undecided"


def test_a_reference_that_no_one_can_tell_from_a_control_decides_nothing():
    """Where drawing from a gaussian is as good as training."""
    against = judge(draw(100, 104), controls={**CONTROLS, Control("gaussian"): draw(100, 114)})
    assert against.resolution < verdict.RESOLUTION
    assert called(against) == "undecided"


def test_without_a_reference_nothing_is_judged():
    assert judge(draw(100, 104), held=draw(0, 103)) is None
    assert judge(draw(100, 104), held=draw(1, 103)) is None
    assert judge(draw(100, 104), held=draw(1, 103).expand(100, -1)) is None
    assert word(Evidence(0.0, 100, 0, None, None)) == "undecided"
    assert word(Evidence(0.6, 100, 0, None, None)) == "broken"


def test_everything_but_the_originals_is_judged():
    against = usual()
    assert set(against.judgements) == {"generated", "reference", *map(str, CONTROLS)}
    new = {name: one.composition.new.value for name, one in against.judgements.items()}
    trivial = max(new[str(name)] for name in CONTROLS if name != Control("copy"))
    assert against.resolution == pytest.approx(new["reference"] - trivial)
    single = against.judgements["average"]
    assert (single.quality, single.variety, single.fidelity) == (None, None, None)
    for one in against.judgements.values():
        assert sum(one.composition.shares.values()) == pytest.approx(1)
        for kind in KINDS:
            share = getattr(one.composition, kind)
            assert 0 <= share.low <= share.value <= share.high <= 1 + 1e-9


def test_a_part_of_the_mixture_is_judged_by_its_other_half():
    """Of the reference, both halves are alike; a control's half is made of what it is."""
    found = usual().judgements
    assert found["reference"].composition.new.value > 0.7
    assert found["reference"].copying.nearer <= 5
    assert found["gaussian"].composition.averages.value > 0.8
    assert found["noise 3"].composition.broken.value > 0.8
    assert found["copy"].composition.copies.value > 0.8
    assert found["average"].composition.averages.value > 0.8


@pytest.mark.parametrize("models", [2, 3])
def test_a_reference_of_two_or_three_models_has_half_of_one(models):
    found = judge(draw(100, 104), held=draw(models, 103)).judgements
    for one in found.values():
        assert torch.tensor(one.composition.residual).isfinite()
    assert found["reference"].composition.residual != 0


def test_judging_is_repeatable_and_one_population_is_judged_alike_beside_any_other():
    first, again, other = usual(), judge(draw(100, 104)), judge(drawn(ZOO, 5))
    assert first == again
    shares = first.judgements["gaussian"].composition.shares
    assert other.judgements["gaussian"].composition.shares == pytest.approx(shares)
    assert other.resolution == pytest.approx(first.resolution)


def test_a_better_score_is_above_0_in_every_metric():
    scores = torch.full((100,), 0.5, dtype=torch.float64) + 0.01 * draw(100, 15)[:, 0].double()
    for metric, sign in ((ACCURACY, 1), (Metric("error", higher_is_better=False), -1)):
        quality = (
            judge(draw(100, 104), scores=scores, metric=metric).judgements["generated"].quality
        )
        assert sign * quality.difference.value < -0.3
        assert sign * quality.difference.high < 0 or sign * quality.difference.low < 0
        assert quality.equivalence > 0.99
    assert usual().judgements["generated"].quality.margin == 0.005
    held = population(REFERENCE, draw(100, 103)).val.mean()
    assert quality.margin == pytest.approx(0.005 * float(held))


def test_a_model_that_is_very_far_leaves_the_judgement_of_others_as_it_is():
    far = draw(100, 104)
    far[7] = 3e38
    beside = judge(far)
    assert beside.resolution == pytest.approx(usual().resolution)
    for name in ("reference", "gaussian"):
        shares = usual().judgements[name].composition.shares
        assert beside.judgements[name].composition.shares == pytest.approx(shares)


# Hidden units in another order ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def networks():
    """A zoo of 30 whole MLPs, and 100 more; in both, models differ a lot."""
    with scoped(generator(0, "networks")):
        model = build("mlp3", Shape(1, 8, 4))
    tensors = {name: p.detach() for name, p in model.named_parameters()}
    layout = Layout(tuple(tensors), tuple(tuple(t.shape) for t in tensors.values()))
    centre = layout.flatten(tensors)
    drawn = centre + 0.05 * draw(330, 20, layout.dim)
    return model, Zoo(drawn[:30], layout), drawn[30:]


def outputs(model, layout, vectors):
    """Probabilities of 40 random images."""
    images = torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(21))

    def one(vector):
        return torch.func.functional_call(model, layout.unflatten(vector), (images,)).softmax(1)

    with torch.no_grad():
        return torch.stack([one(vector).flatten() for vector in vectors])


def test_permuted_copies_are_copies_and_trained_models_are_new(networks):
    model, zoo, others = networks
    copies = drawn(zoo.vectors, 22)
    shuffled = permuted(zoo, copies, torch.Generator().manual_seed(23))
    assert not torch.allclose(shuffled, copies, atol=0.01)
    models = {
        ORIGINAL: zoo.vectors,
        REFERENCE: others[:100],
        GENERATED: shuffled,
        Origin("new", "generated"): permuted(
            zoo, others[100:200], torch.Generator().manual_seed(24)
        ),
        Origin.of(AVERAGE): zoo.vectors.mean(0, keepdim=True),
        Origin.of(Control("gaussian")): zoo.vectors.mean(0) + 0.01 * draw(50, 25, zoo.layout.dim),
        Origin.of(NOISE): zoo.vectors + 0.5 * draw(30, 26, zoo.layout.dim),
    }
    first, units = zoo.vectors[0], groups(zoo)
    populations = [
        population(
            origin,
            (outputs(model, zoo.layout, vectors), align(vectors, first, zoo.layout, units)),
        )
        for origin, vectors in models.items()
    ]
    against = against_reference(populations, ACCURACY, torch.Generator().manual_seed(0))
    assert against.judgements["generated"].composition.copies.value > 0.9
    assert called(against) == "copies"
    assert against.judgements["new"].composition.new.value > 0.8
    assert called(against, "new") == "novel"


# Rule 2 --------------------------------------------------------------------------------------------------------------


def share(value):
    return Interval(value=value, low=value, high=value)


def composition(new=1.0, copies=0.0, averages=0.0, broken=0.0, residual=0.0, p=1.0):
    shares = {"new": new, "copies": copies, "averages": averages, "broken": broken}
    return Composition(**{k: share(v) for k, v in shares.items()}, residual=residual, p=p)


def evidence(lost=0.0, models=100, reference=50, resolution=0.3, nearer=0, copying=1.0, **mixture):
    judgement = Judgement(
        composition=composition(**mixture), copying=CopyTest(nearer=nearer, p=copying)
    )
    return Evidence(lost, models, reference, judgement, resolution)


MIXTURES = {
    "novel": {"new": 0.6, "copies": 0.4},
    "copies": {"new": 0.2, "copies": 0.7, "averages": 0.1},
    "averages": {"new": 0.4, "averages": 0.6},
    "broken": {"new": 0.1, "broken": 0.9},
}


@pytest.mark.parametrize("expected", MIXTURES)
def test_the_word_is_that_of_the_largest_share(expected):
    found = evidence(**MIXTURES[expected])
    assert list(doubts(found)) == []
    assert word(found) == expected


def test_every_kind_and_every_word_of_rule_2_is_there():
    assert tuple(verdict.WORDS) == KINDS
    assert set(verdict.WORDS.values()) == set(MIXTURES)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"models": 99}, "99 models were generated, 100 are needed"),
        ({"reference": 49}, "the reference has 49 models, 50 are needed"),
        (
            {"resolution": 0.29},
            "the board cannot tell training from every control: resolution 0.29",
        ),
        ({"residual": 0.16, "p": 0.01}, "no mixture fits: 0.16 of the reference's own distance"),
        ({"new": 0.49, "copies": 0.3, "averages": 0.21}, "nothing makes up one half of the models"),
        ({"nearer": 7, "copying": 0.01}, "7 models are nearer to a checkpoint than any that never"),
    ],
)
@pytest.mark.parametrize("expected", ["novel"])
def test_every_doubt_by_itself_is_enough(changes, reason, expected):
    assert word(evidence()) == expected
    found = evidence(**changes)
    (doubt,) = doubts(found)
    assert reason in doubt
    assert word(found) == "undecided"


@pytest.mark.parametrize(
    "changes",
    [
        {"models": 100, "reference": 50, "resolution": 0.3},
        {"residual": 0.15, "p": 0.0},
        {"residual": 0.9, "p": 0.011},
        {"new": 0.5, "copies": 0.5},
        {"nearer": 6, "copying": 0.011},
    ],
)
def test_at_its_bound_no_doubt_is_raised(changes):
    assert list(doubts(evidence(**changes))) == []


def test_the_copy_test_counts_against_novelty_alone():
    found = evidence(nearer=90, copying=1e-9, new=0.2, copies=0.8)
    assert list(doubts(found)) == []
    assert word(found) == "copies"


def test_no_reference_is_the_only_doubt_then():
    (doubt,) = doubts(Evidence(0.0, 4, 0, None, None))
    assert doubt == "there is no reference of held-out trained models"


def test_what_was_lost_is_broken_whatever_else_is_doubted():
    assert word(evidence(lost=0.51, models=3, resolution=0.0)) == "broken"
    assert word(evidence(lost=0.5)) == "novel"


def test_all_doubts_are_told():
    found = evidence(models=1, reference=2, resolution=-0.5, residual=0.5, p=0.0)
    assert len(list(doubts(found))) == 4


def test_shares_that_do_not_sum_to_1_are_refused():
    with pytest.raises(ValueError, match="the shares do not sum to 1"):
        composition(new=0.5, copies=0.4)


def test_evidence_is_of_numbers_alone():
    fields = {field.name for field in dataclasses.fields(Evidence)}
    assert fields == {"lost", "models", "reference", "judgement", "resolution"}
    assert replace(evidence(), models=99) != evidence()
    assert judged.KINDS == KINDS


# What the report says ------------------------------------------------------------------------------------------------


def recorded(found, word):
    """A record by rule 2 with this evidence, and this word."""
    data = valid()
    populations = data["populations"]
    for name, count in (("generated", found.models), ("reference", found.reference)):
        scores = numbers([0.7, *[0.72] * (count - 1)])
        usual = populations["original"] | {"name": name, "role": name, "n": count}
        populations[name] = usual | scores
    data["protocol"] |= {"samples": found.models, "held_out": found.reference}
    data["judge"] |= {"word": word, "rule": 2, "sees_training": None}
    if found.judgement:
        judgement = found.judgement.model_dump()
        data["judge"] |= {
            "against_reference": {"generated": judgement},
            "resolution": found.resolution,
        }
    return parsed(data)


def verdict_lines(record):
    """The lines on the verdict: from the one that begins with it to that on the parts, if there is one."""
    lines = report.sentences(record)
    (first,) = (i for i, line in enumerate(lines) if line.startswith("verdict: "))
    return lines[first : first + 2]


@pytest.mark.parametrize("expected", MIXTURES)
def test_the_report_says_the_word_and_what_the_models_are_made_of(expected):
    first, second = verdict_lines(recorded(evidence(**MIXTURES[expected]), expected))
    assert first == f"verdict: {expected}, {report.VERDICTS[expected]}"
    shares = sorted(MIXTURES[expected].items(), key=lambda one: -one[1])
    named = [f"{100 * value:.0f} % {'new' if kind == 'novel' else kind}" for kind, value in shares]
    assert second.startswith(f"made of {', '.join(named)}; ")
    assert second.endswith("the board tells training from every control: resolution 0.30")


def test_the_report_says_that_nothing_is_new():
    _, second = verdict_lines(recorded(evidence(new=0.004, copies=0.996), "copies"))
    assert second.startswith("made of 100 % copies, nothing new; ")


def test_the_report_says_every_doubt():
    found = evidence(models=7, resolution=0.1, new=0.4, copies=0.3, broken=0.3)
    first, second = verdict_lines(recorded(found, "undecided"))
    assert first == f"verdict: undecided: {'; '.join(doubts(found))}"
    assert second.endswith("does not tell training from every control: resolution 0.10")


def test_the_report_says_that_there_is_no_reference_unless_all_is_lost():
    without = Evidence(0.0, 100, 3, None, None)
    assert verdict_lines(recorded(without, "undecided"))[0] == report.NO_REFERENCE
    assert verdict_lines(recorded(without, "broken"))[0] == "verdict: broken"


def test_a_word_by_rule_1_is_called_withdrawn():
    data = valid()
    assert data["judge"]["rule"] == 1
    (line, _) = verdict_lines(parsed(data))
    assert line == "verdict: averages, by rule 1, which is withdrawn: run the command again"
