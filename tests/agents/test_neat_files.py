"""neat-python's configuration files, and pictures of an evolution."""

import numpy as np
import pytest

from benchmarks.neat import CONFIG
from rl_lab import train
from rl_lab.agents import neat
from rl_lab.agents.neat.agent import NEAT
from rl_lab.agents.neat.importing import read_neat_python
from rl_lab.agents.neat.pictures import ancestors, draw_course, draw_genealogy, draw_species
from rl_lab.experiment import driver
from rl_lab.experiment.faults import Fault
from rl_lab.nn.graph.picture import as_image
from tests.agents.test_neat import fitness

USED = {
    *("pop_size", "fitness_threshold", "num_inputs", "num_outputs", "feed_forward", "initial_connection", "elitism"),
    *("activation_default", "activation_mutate_rate", "activation_options", "aggregation_default", "enabled_mutate_rate"),
    *("compatibility_disjoint_coefficient", "compatibility_excess_coefficient", "compatibility_weight_coefficient"),
    *("compatibility_threshold", "max_stagnation", "survival_threshold"),
    *("conn_add_prob", "conn_delete_prob", "node_add_prob", "node_delete_prob", "num_hidden"),
    *("weight_init_stdev", "weight_max_value", "weight_min_value"),
    *("weight_mutate_power", "weight_mutate_rate", "weight_replace_rate"),
}


def imported(tmp_path, text):
    (tmp_path / "neat.cfg").write_text(text)
    return read_neat_python(tmp_path / "neat.cfg")


def test_known_keys_are_mapped_and_the_others_listed(tmp_path):
    found = imported(tmp_path, CONFIG)
    config = found.config
    assert (config.population, config.add_node, config.add_connection) == (150, 0.03, 0.1)
    assert (config.excess_coefficient, config.weight_coefficient, config.compatibility_threshold) == (1.0, 0.5, 3.0)
    assert config.activation == config.output_activation == "steepened_sigmoid"
    assert config.activation_options == ("steepened_sigmoid",)
    assert not config.recurrent
    assert config.initially_connected == 1.0
    assert config.weight_limit == 8.0
    assert config.mutate_weights == pytest.approx(0.9)
    assert config.perturb_weight == pytest.approx(8 / 9)
    assert config.weight_power == pytest.approx(0.5 * 3**0.5)
    assert config.weight_range == pytest.approx(3**0.5)
    assert (found.inputs, found.outputs, found.fitness_threshold) == (2, 1, 1000.0)
    assert "DefaultGenome.bias_init_mean" in found.unused
    assert "NEAT.reset_on_extinction" in found.unused
    assert not any("conn_add_prob" in key or "pop_size" in key for key in found.unused)
    assert any("4.9" in note for note in found.notes)
    # every key of the file is either used or listed
    keys = [line.split("=")[0].strip() for line in CONFIG.splitlines() if "=" in line]
    listed = {key.split(".")[1] for key in found.unused}
    assert listed < set(keys)
    assert set(keys) - listed == USED


def test_other_values(tmp_path):
    text = CONFIG.replace("feed_forward = True", "feed_forward = False").replace("full_direct", "partial_direct 0.25")
    text = text.replace("activation_default = sigmoid", "activation_default = tanh").replace("elitism = 1", "elitism = 0")
    text = text.replace("num_hidden = 0", "num_hidden = 3")
    config = imported(tmp_path, text).config
    assert config.recurrent
    assert config.initially_connected == 0.25
    assert config.activation == "tanh"
    assert config.initial_hidden == 3
    assert config.elitism_from > config.population


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pop_size = 150", "pop_size = many", r"neat\.cfg: pop_size takes an integer"),
        ("node_add_prob = 0.03", "node_add_prob = 3", r"neat\.cfg: node_add_prob must be at most 1"),
        ("max_stagnation = 15", "max_stagnation = 0", r"neat\.cfg: max_stagnation must be at least 1"),
        ("weight_mutate_rate = 0.8", "weight_mutate_rate = -0.1", r"neat\.cfg: weight_mutate_rate .* 0 to 1, got -0.1"),
        ("weight_replace_rate = 0.1", "weight_replace_rate = 1.5", "weight_replace_rate .* got 1.5"),
        ("weight_init_stdev = 1.0", "weight_init_stdev = inf", "weight_init_stdev must be a finite number, got 'inf'"),
        ("weight_mutate_power = 0.5", "weight_mutate_power = -1", "weight_mutate_power"),
        (
            "compatibility_threshold = 3.0",
            "compatibility_threshold = inf",
            "compatibility_threshold must be a finite number, got 'inf'",
        ),
        ("elitism = 1", "elitism = -1", "elitism"),
        ("full_direct", "partial 1.5", "share must be from 0 to 1"),
        ("activation_default = sigmoid", "activation_default = bessel", "bessel"),
        ("aggregation_default = sum", "aggregation_default = xor", "xor"),
        ("feed_forward = True", "feed_forward = perhaps", "perhaps"),
        ("full_direct", "star", "star"),
        ("weight_mutate_rate = 0.8", "weight_mutate_rate = x", "weight_mutate_rate"),
        ("[NEAT]", "[OTHER]", "no section"),
        ("[NEAT]", "pop", "not a neat-python configuration"),
    ],
)
def test_faults_name_the_value(tmp_path, old, new, message):
    assert old in CONFIG
    with pytest.raises(Fault, match=message):
        imported(tmp_path, CONFIG.replace(old, new))


def test_notes_name_keys_with_another_meaning(tmp_path):
    """A note names each key whose meaning here differs from neat-python's."""
    text = CONFIG.replace("enabled_mutate_rate = 0.0", "enabled_mutate_rate = 0.1").replace("full_direct", "full_nodirect")
    text = text.replace("weight_min_value = -8.0", "weight_min_value = -2").replace("elitism = 1", "elitism = 2")
    found = imported(tmp_path, text.replace("activation_mutate_rate = 0.0", "activation_mutate_rate = 0.1"))
    for key in ("enabled_mutate_rate", "activation_mutate_rate", "full_nodirect", "weight_min_value -2", "elitism 2"):
        assert any(key in note for note in found.notes), key
    plain = imported(tmp_path, CONFIG).notes
    assert not any("weight_min_value" in note or "elitism" in note or "_mutate_rate:" in note for note in plain)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("activation_default = sigmoid", "activation_default = random"),
        ("activation_default = sigmoid", "activation_default = hat"),
        ("activation_options = sigmoid", "activation_options = sigmoid random"),
        ("aggregation_default = sum", "aggregation_default = max"),
        ("aggregation_default = sum", "aggregation_default = random"),
        ("full_direct", "fs_neat_nohidden"),
    ],
)
def test_notes_name_values_that_are_not_available(tmp_path, old, new):
    """A value that only neat-python has is named in a note; it is not an error."""
    assert old in CONFIG
    found = imported(tmp_path, CONFIG.replace(old, new))
    assert any(new.split()[-1] in note for note in found.notes)
    assert found.config.aggregation == "sum"
    assert found.config.activation_options == ("steepened_sigmoid",)


def test_one_coefficient_of_disjoint_and_excess_genes(tmp_path):
    text = CONFIG.replace("compatibility_excess_coefficient = 1.0\n", "").replace(
        "disjoint_coefficient = 1.0", "disjoint_coefficient = 0.7"
    )
    config = imported(tmp_path, text).config
    assert config.excess_coefficient == config.disjoint_coefficient == 0.7
    assert (
        imported(tmp_path, CONFIG.replace("disjoint_coefficient = 1.0", "disjoint_coefficient = 0.7")).config.excess_coefficient
        == 1
    )


def test_the_command_reads_such_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "find_agent", lambda name: NEAT)
    monkeypatch.setattr(driver, "find_agent", lambda name: NEAT)
    path = tmp_path / "neat.cfg"
    path.write_text(CONFIG.replace("pop_size = 150", "pop_size = 44"))
    plan = train.parse(["--agent", "neat", "--env", "CartPole-v1", "--config", str(path), "--add-node", "0.5"])
    assert plan.config.population == 44
    assert plan.config.add_node == 0.5  # the command line overrides the file
    assert plan.config.weight_coefficient == 0.5
    out = capsys.readouterr().out
    (ignored,) = (line for line in out.splitlines() if line.startswith(f"{path}: ignored: "))
    assert "DefaultGenome.activation" not in ignored
    assert "DefaultGenome.bias_init_mean" in out
    for key in ("num_inputs", "num_outputs", "fitness_threshold"):  # not mapped, but mentioned
        assert key in out


def test_a_missing_file():
    with pytest.raises(Fault, match="cannot read"):
        read_neat_python("no such file")


def test_pictures_of_an_evolution():
    evolution = neat.evolve(fitness, 2, 1, seed=1, generations=25).evolution
    bands = draw_species(evolution.history).axes[0].collections
    assert len(bands) == len({number for seen in evolution.history for number in seen.species})
    for figure in (draw_species(evolution.history), draw_course(evolution.history), draw_genealogy(evolution)):
        assert len(np.unique(as_image(figure).reshape(-1, 3), axis=0)) > 10


def test_ancestors():
    """By hand: champion 4 of generation 2 has the parents 1 and 3; genome 1 is a copy of 0, and genome 3 has the parents 2 and 5."""
    evolution = neat.Evolution(2, 1, neat.NEATConfig(population=6))
    first, second = np.full((6, 2), -1), np.full((6, 2), -1)
    first[1] = (0, -1)
    first[3] = (2, 5)
    second[4] = (1, 3)
    evolution.ancestry += [first, second]
    evolution.champion_place = (2, 4)
    assert ancestors(evolution) == [{0, 2, 5}, {1, 3}, {4}]
    assert len(draw_genealogy(evolution).axes[0].lines) == 5
