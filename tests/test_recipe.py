from collections import Counter

import pytest

from bench import plugins
from bench.errors import BadRequest
from bench.records.paper import tables
from bench.study import drive, recipe
from bench.study.graph import build

FIXED = 'title = "x"\n[fixed]\ntask = "digits"\ngenerator = "pdiff"\n'


def written(folder, text):
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(folder, text):
    with pytest.raises(BadRequest) as caught:
        recipe.cells(recipe.read(written(folder, text)))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[axes]\nsed = [0]', "mine: unknown axis 'sed': did you mean 'seed'?"),
        ('[axes]\nresults = ["x"]', "mine: unknown axis 'results'"),
        ("[axes]\nset = [1]", "mine: unknown axis 'set'"),
        ("[axes]\nseed = []", "mine: axis 'seed' is empty"),
        ("[axes]\nseed = 1", "axes.seed: Input should be a valid list"),
        ("[axes]\nseed = [0, 1, 0]", "mine: the same run twice (an axis has a value twice): python -m bench run"),
        ("[axes]\nmin_score = [0.5, 0.6]", "mine: the same run twice"),  # they would share one record
        ('[axes]\nseed = ["first"]', "mine: seed=first: Input should be a valid integer"),
        ("[axes]\nk = [0]", "k is 0, expected at least 1"),
        ('[axes]\ngenerator = ["vae"]', "mine: 'generator' is an axis and fixed"),
        ('[axes]\ntask = ["digits"]', "mine: 'task' is an axis and fixed"),
        ('[fixd]\nk = 1', "fixd: Extra inputs are not permitted"),
        ("[needs.colect]\ncpus = 1", "needs.colect"),
        ("[needs.collect]\ncpus = 0", "needs.collect.cpus: Input should be greater than or equal to 1"),
        ("[axes", "mine.toml is not a TOML file"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_recipe(tmp_path, text, message):
    assert message in refused(tmp_path, FIXED + text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[fixed]\ntask = "digits"', "mine: no generator: fix one, or make it an axis"),
        ('[fixed]\ngenerator = "vae"', "mine: no task"),
        ('paper = ["4"]', "mine: unknown table of the paper '4'"),
        ('paper = ["2a", "7b"]', "the same run twice (table 2a, 1 and table 7b, 1)"),
        ('[fixed]\ntask = "digit"\ngenerator = "vae"', "mine: unknown task 'digit': did you mean 'digits'?"),
        ('[fixed]\nsamples = -1\ntask = "digits"\ngenerator = "vae"', "samples is -1"),
    ],
)  # fmt: skip
def test_what_is_missing_in_a_recipe(tmp_path, text, message):
    assert message in refused(tmp_path, f'title = "x"\n{text}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[axes]\n"set.latent_nois" = [1]', "unknown hyperparameter of pdiff 'latent_nois'"),
        ('[axes]\n"set.latent_noise" = [-1]', "latent_noise is -1"),
        ('[axes]\narch = ["resnet81"]', "unknown architecture 'resnet81'"),
        ('[axes]\n"set.task.epoch" = [1]', "unknown task setting 'epoch'"),
    ],
)
def test_settings_that_are_not_there_are_refused_before_anything_starts(tmp_path, text, message):
    made = recipe.read(written(tmp_path, FIXED + text))
    with pytest.raises(BadRequest, match="mine: ") as caught:
        drive.run(made, recipe.cells(made), drive.Execution(tmp_path / "results"))
    assert message in str(caught.value)
    assert not list((tmp_path / "results").rglob("*.json"))
    assert not (tmp_path / "home").exists()


def test_a_name_that_is_none():
    with pytest.raises(BadRequest, match=r"unknown study 'table33': did you mean 'table3'\?"):
        recipe.read("table33")
    with pytest.raises(BadRequest, match=r"no recipe at none\.toml"):
        recipe.read("none.toml")


def test_axes_are_multiplied_and_what_they_say_wins(tmp_path):
    text = 'title = "x"\npaper = ["3b"]\n[fixed]\nk = 5\n[axes]\ntrack = ["seeds", "trajectory"]\nseed = [0, 1]'
    found = recipe.cells(recipe.read(written(tmp_path, text)))
    assert len(found) == 2 * 2 * 2
    assert [cell.label for cell in found[::2]] == [
        ("MNIST", "seeds"), ("MNIST", "trajectory"), ("CIFAR-10", "seeds"), ("CIFAR-10", "trajectory"),
    ]  # fmt: skip
    assert found[2].request.asked.command == (
        "python -m bench run --task mnist --generator pdiff --arch mlp3 --layers all "
        "--track trajectory --k 5"
    )


def test_hyperparameters_with_and_without_quotes_are_the_same(tmp_path):
    both = [
        recipe.cells(recipe.read(written(tmp_path, FIXED + axes)))
        for axes in ('[axes]\n"set.latent_noise" = [0.5]', "[axes]\nset.latent_noise = [0.5]")
    ]
    assert both[0] == both[1]
    assert both[0][0].request.generator_settings == {"latent_noise": 0.5}


def test_rows_of_originals_share_the_run_of_another_row(tmp_path):
    found = recipe.cells(recipe.read(written(tmp_path, 'title = "x"\npaper = ["2c"]')))
    assert len(found) == 5
    assert len(recipe.requests(found)) == 4
    assert found[0].request == found[4].request


def test_fixing_and_choosing(tmp_path):
    made = recipe.read("table2a").fix({"task": "digits", "arch": "convnet3", "seed": 7})
    found = recipe.cells(made)
    assert {cell.request.task for cell in found} == {"digits"}
    assert {cell.request.seed for cell in found} == {7}
    assert [cell.request.k for cell in recipe.only(found, {"k": [10, 200]})] == [10, 200]
    assert len(recipe.only(found, {"arch": ["convnet3"], "set.latent_noise": [None]})) == 5
    with pytest.raises(BadRequest, match="no run of the study is left"):
        recipe.only(found, {"k": [11]})
    with pytest.raises(BadRequest, match="unknown setting 'kk'"):
        recipe.only(found, {"kk": [11]})
    with pytest.raises(BadRequest, match="unknown setting 'kk'"):
        made.fix({"kk": 1})


# What ships ----------------------------------------------------------------------------------------------------------

SHIPPED = (
    *("table1", "table2a", "table2b", "table2c", "table3", "table5", "table6", "table7"),
    *("table8a", "table8b", "table8c", "table9", "table10", "table11", "table12"),
    *("figure4", "figure5", "figure7"),
)
OURS = ("smoke", "field", "flow_lengths", "audit_memorization", "audit_interpolation")


def test_everything_ships():
    assert set(recipe.names()) == {*SHIPPED, *OURS}


@pytest.mark.parametrize("name", [*SHIPPED, *OURS])
def test_every_shipped_recipe_can_be_run(name):
    made = recipe.read(name)
    found = recipe.cells(made)
    drive.check(made, found)
    assert made.title
    if name != "smoke":
        assert {cell.request.seed for cell in found} == {0, 1, 2}
    assert {cell.request.preset for cell in found} == {"paper" if name in SHIPPED else "quick"}


def test_the_papers_tables_are_all_run():
    run = {table for name in SHIPPED for table in recipe.read(name).paper}
    assert run == set(tables())


def test_smoke_has_every_generator_and_every_embedded_task():
    axes = recipe.read("smoke").axes
    assert set(axes["generator"]) == set(plugins.generators())
    embedded = {name for name, task in plugins.tasks().items() if "embedded" in task.about}
    assert set(axes["task"]) == embedded


def test_table1_is_eight_data_sets_by_six_architectures():
    requests = recipe.requests(recipe.cells(recipe.read("table1")))
    pairs = {(request.task, request.task_settings["arch"]) for request in requests}
    assert len(pairs) == 48
    assert len(requests) == 144


def test_stages_are_told_apart_by_any_setting_of_the_task(tmp_path):
    axes = '[axes]\nseed = [0, 1]\n"set.task.epochs" = [1, 2]\n"set.task.train_size" = [50, 60]\n'
    nodes = build(recipe.requests(recipe.cells(recipe.read(written(tmp_path, FIXED + axes)))), {})
    labels = [node.label for node in nodes]
    assert len(set(labels)) == len(labels)
    # The size of the split that selects decides no checkpoints.
    assert [label for label in labels if label.startswith("collect")] == [
        f"collect digits k=200 epochs={epochs}" for epochs in (1, 2)
    ]
    assert "fit pdiff digits k=200 seed=1 epochs=2 train_size=60" in labels


@pytest.mark.parametrize("name", recipe.names())
def test_no_two_stages_of_a_study_are_called_the_same(name):
    nodes = build(recipe.requests(recipe.cells(recipe.read(name))), {})
    twice = [label for label, count in Counter(node.label for node in nodes).items() if count > 1]
    assert not twice
