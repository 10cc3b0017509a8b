"""A table of mistakes on the command line: each ends with the same exit code, a line that names the mistake, and an untouched directory."""

import hashlib
import shlex
import shutil
from pathlib import Path

import pytest

from rl_lab import evaluate, train

P = "--agent ppo --env CartPole-v1"
D = "--agent dqn --env CartPole-v1"
TRAIN = f"""
 -> name an agent and an environment, as in: python -m rl_lab.train --agent dqn --env CartPole-v1
--agent dqn -> name an agent and an environment
--env CartPole-v1 -> name an agent and an environment
CartPole-v1 -> name an agent and an environment
ppo CartPole-v1 -> name an agent and an environment
--agnet dqn --env CartPole-v1 -> unknown option '--agnet', did you mean '--agent'?
--algo dqn --env CartPole-v1 -> unknown option '--algo', did you mean '--agent'?
--agent dqn --env-id CartPole-v1 -> unknown option '--env-id', did you mean '--env'?
--agent dqn --environment=CartPole-v1 -> unknown option '--environment', did you mean '--env'?
--agent -> --agent needs a value
--agent ppo --env -> --env needs a value
{P} extra -> unexpected argument 'extra'
{P} -x -> unknown option '-x'
{P} -h5 -> -h takes no value, got '5'
{P} ---lr 3 -> did you mean '--learning-rate'?
--agent PP0 --env CartPole-v1 -> unknown agent 'PP0', did you mean 'ppo'?
--agent rainbow --env CartPole-v1 -> unknown agent 'rainbow', did you mean 'dqn'?
--agent ddpg --env CartPole-v1 -> unknown agent 'ddpg', did you mean 'td3'?
--agent recurrent-ppo --env CartPole-v1 -> did you mean 'recurrent_ppo'?
--agent nowhere:Agent --env CartPole-v1 -> there is no module 'nowhere'
--agent os:path --env CartPole-v1 -> module 'os' has no agent 'path'
--agent os: --env CartPole-v1 -> module 'os' has no agent ''
--agent :DQN --env CartPole-v1 -> '' is not the name of a module
--agent "" --env CartPole-v1 -> name an agent and an environment
--agent dqn --env "" -> name an agent and an environment
--agent dqn --env CartPole -> unknown environment 'CartPole', did you mean 'CartPole-v1'?
--agent dqn --env cartpole-v1 -> did you mean 'CartPole-v1'?
--agent dqn --env CartPole-V1 -> did you mean 'CartPole-v1'?
--agent dqn --env "CartPole v1" -> did you mean 'CartPole-v1'?
--agent dqn --env CartPole-v9 -> did you mean 'CartPole-v1'?
--agent dqn --env CratPole-v1 -> did you mean 'CartPole-v1'?
--agent dqn --env LunarLander-v2 -> did you mean 'LunarLander-v3'?
--agent dqn --env lunarlander -> did you mean 'LunarLander-v3'?
--agent dqn --env Taxi -> did you mean 'Taxi-v
--agent dqn --env mountaincar -> did you mean 'MountainCar-v0'?
--agent dqn --env rl_lab/DoublePol-v0 -> did you mean 'rl_lab/DoublePole-v0'?
--agent dqn --env nowhere:World-v0 -> there is no module 'nowhere'
--agent dqn --env a-b:World-v0 -> 'a-b' is not the name of a module
--agent dqn --env gymnasium:CartPole -> did you mean 'gymnasium:CartPole-v1'?
--agent dqn --env Pendulum-v1 -> dqn needs Discrete actions, but Pendulum-v1 has Box(-2.0, 2.0, (1,), float32): use sac, td3 or ppo
--agent qrdqn --env Pendulum-v1 -> use sac, td3 or ppo
--agent td3 --env CartPole-v1 -> td3 needs Box actions, but CartPole-v1 has Discrete(2): use dqn or ppo
{P} --lr 1 -> did you mean '--learning-rate'?
{P} --learning_rate 1 -> did you mean '--learning-rate'?
{P} --n-steps 1 -> did you mean '--num-steps'
{P} --n_steps 1 -> did you mean '--num-steps'
{P} --ent_coef 1 -> did you mean '--entropy-coefficient'?
{P} --clip_range 1 -> did you mean '--clip-range'?
{P} --batch_size 1 -> did you mean '--batch-size'?
{P} --n-envs 1 -> did you mean '--num-envs'?
{P} --timesteps 1 -> did you mean '--total-timesteps'?
{P} --logdir x -> did you mean '--run-dir'?
{P} --hidden-sizes 64 -> did you mean '--network'?
{D} --buffer_size 1 -> did you mean '--buffer-size'?
{D} --batchsize 1 -> unknown option '--batchsize', did you mean '--batch-size'?
{D} --batch-size many -> --batch-size takes an integer, not 'many'
{D} --epsilon 1 -> did you mean '--exploration-initial'?
{D} --polyak 1 -> did you mean '--tau'?
{P} --device cuda -> rl_lab computes on the CPU, leave it out
{P} --gpu -> rl_lab computes on the CPU, leave it out
{P} --wandb -> --log wandb sends the log to wandb
{P} --optimizer adam -> this agent has one optimiser, leave it out
{P} --seed -> --seed needs a value
{P} --seed -1 -> --seed must be at least 0, got -1
{P} --seed 1.5 -> --seed takes an integer, not '1.5'
{P} --total-timesteps 1.5 -> --total-timesteps takes an integer, not '1.5'
{P} --seed one -> --seed takes an integer, not 'one'
{P} --seed 0x10 -> --seed takes an integer, not '0x10'
{P} --seed "" -> --seed takes an integer, not ''
{P} --seed 1e400 -> --seed takes an integer, not '1e400'
{P} --seed 99999999999999999999 -> --seed must be an integer of 64 bits
{P} --num-envs 0 -> --num-envs must be at least 1, got 0
{P} --num-envs -4 -> --num-envs must be at least 1, got -4
{P} --num-envs auto -> --num-envs takes an integer, not 'auto'
{P} --num-envs 1e12 -> not enough memory for these settings
{P} --total-timesteps 0 -> --total-timesteps must be at least 1, got 0
{P} --total-timesteps -5 -> --total-timesteps must be at least 1, got -5
{P} --total-timesteps 1M -> --total-timesteps takes an integer, not '1M': write 1000000 or 1e6
{P} --total-timesteps 10k -> --total-timesteps takes an integer, not '10k': write 10000 or 1e4
{P} --total-timesteps 1,000 -> --total-timesteps takes an integer, not '1,000': write 1000 or 1e3
{P} --total-timesteps inf -> --total-timesteps takes an integer, not 'inf'
{P} --gamma 1.5 -> --gamma must be at most 1, got 1.5
{P} --gamma -0.5 -> --gamma must be at least 0, got -0.5
{P} --gamma nan -> --gamma must be a finite number, got nan
{P} --gamma inf -> --gamma must be finite in float32, got inf
{P} --gamma 0,99 -> --gamma takes a number, not '0,99'
{P} --gamma "" -> --gamma takes a number, not ''
{P} --gamma=half -> --gamma takes a number, not 'half'
{P} --learning-rate 0 -> --learning-rate must be above 0, got 0
{P} --learning-rate -1 -> --learning-rate must be above 0, got -1
{P} --learning-rate 1e39 -> --learning-rate must be finite in float32
{P} --learning-rate 1/3 -> --learning-rate takes a number, not '1/3'
{P} --learning-rate 1e-3x -> --learning-rate takes a number, not '1e-3x'
{P} --clip-range -5 -> --clip-range must be above 0, got -5
{P} --batch-size 0 -> --batch-size must be at least 1, got 0
{P} --batch-size 7 -> batch_size 7 must divide a rollout of 32 steps x 8 environments
{P} --epochs 0 -> --epochs must be at least 1, got 0
{P} --num-steps 0 -> --num-steps must be at least
{P} --gae-lambda 2 -> --gae-lambda must be at most 1, got 2
{P} --entropy-coefficient -1 -> --entropy-coefficient must be at least 0, got -1
{P} --max-grad-norm 0 -> --max-grad-norm must be above 0, got 0
{D} --buffer-size 0 -> --buffer-size must be at least 1, got 0
{D} --buffer-size 1e15 -> not enough memory for these settings
{D} --buffer-size 4 --train-frequency 8 -> is smaller than the 8 environment steps
{D} --tau 2 -> --tau must be at most 1, got 2
{D} --exploration-final 2 -> --exploration-final must be at most 1, got 2
{D} --n-steps 0 -> --n-steps must be at least 1, got 0
{D} --learning-starts -1 -> --learning-starts must be at least 0, got -1
{D} --train-frequency 0 -> --train-frequency must be at least 1, got 0
{D} --loss hinge -> --loss 'hinge' is unknown
{D} --loss hubert -> --loss 'hubert' is unknown, did you mean 'huber'?
{P} --activation Relu -> --activation 'Relu' is unknown, did you mean 'relu'?
{P} --activation swish -> --activation 'swish' is unknown: choose from
{P} --backend jax -> --backend 'jax' is unknown: choose from auto, gymnasium, native
{P} --backend Native -> --backend 'Native' is unknown, did you mean 'native'?
{P} --vectorization subproc -> --vectorization 'subproc' is unknown: choose from async, own, sync
--agent ppo --env FrozenLake-v1 --backend native -> 'FrozenLake-v1' has no native environment: use --backend auto or gymnasium
{P} --frame-stack 0 -> --frame-stack must be at least 1, got 0
{P} --frame-stack 1e9 -> not enough memory for these settings
{P} --network 64,64 -> as in mlp:64,64, got '64,64'
{P} --network MLP:64 -> as in mlp:64,64, got 'MLP:64'
{P} --network mlp:64x64 -> with positive sizes, got 'mlp:64x64'
{P} --network mlp:0 -> with positive sizes, got 'mlp:0'
{P} --network mlp:-3 -> with positive sizes, got 'mlp:-3'
{P} --network lstm:64 -> as in mlp:64,64, got 'lstm:64'
{P} --network nowhere/x.json -> 'nowhere/x.json' is neither an evolved network nor a NEAT run
{P} --network some.toml -> --network
{P} --network mlp:99999999999 -> not enough memory for these settings
{P} --keep-best --eval-frequency 0 -> --keep-best needs --eval-frequency
{P} --keep-best maybe -> --keep-best takes true or false, not 'maybe'
{P} --no-keep-best true -> --no-keep-best takes no value, got 'true'
--agent ppo --env Blackjack-v1 --keep-best -> --keep-best needs --eval-frequency
{P} --eval-frequency 0 --stop-return 5 -> --stop-return needs --eval-frequency
{P} --eval-frequency -1 -> --eval-frequency must be at least 0, got -1
{P} --eval-episodes 0 -> --eval-episodes must be at least 1, got 0
{P} --eval-episodes -3 -> --eval-episodes must be at least 1, got -3
{P} --stop-return high -> --stop-return takes a number, not 'high'
{P} --checkpoint-frequency x -> --checkpoint-frequency takes an integer, not 'x'
{P} --keep-checkpoints 0 -> --keep-checkpoints must be at least 1, got 0
{P} --log-frequency 0 -> --log-frequency must be at least 1, got 0
{P} --checkpoint best -> --checkpoint names the checkpoint from which a run continues: give --resume RUN as well
{P} --run-dir some.toml -> cannot create the run directory
{P} --config -> --config needs a value
{P} --config "" -> --config needs the path of a file, not an empty word
{P} --config nowhere.toml -> cannot read nowhere.toml: No such file or directory
{P} --config folder -> cannot read folder: Is a directory
{P} --config some.toml/deeper -> cannot read some.toml/deeper: Not a directory
{P} --config broken.toml -> broken.toml is not valid TOML
{P} --config latin.toml -> latin.toml is not valid TOML
{P} --config list.toml -> --gamma takes a number, not [1, 2]
{P} --config word.toml -> --num-steps takes an integer, not 'many'
{P} --config slip.toml -> unknown setting 'gama', did you mean 'gamma'?
--config module.toml -> names the module 'evil', and importing it runs its code: add --trust if you trust this file
--config table.toml -> [hyperparameters] is a table
--config agent.toml -> agent and env are words, but agent is ['dqn']
{D} --config env.toml -> agent and env are words, but env is 5
{P} --resume "" -> --resume needs the path of a run, not an empty word
--resume -> --resume needs a value
--resume nowhere -> nowhere is not a run: it has no config.toml
--resume some.toml -> some.toml is not a run: it has no config.toml
--resume folder -> folder is not a run: it has no config.toml
--resume RUN --seed 3 -> --seed cannot change when a run is resumed
--resume RUN --env Acrobot-v1 -> --env cannot change when a run is resumed
--resume RUN --agent dqn -> --agent cannot change when a run is resumed
--resume RUN --gamma 0.5 -> --gamma cannot change when a run is resumed
--resume RUN --total-timesteps x -> --total-timesteps takes an integer, not 'x'
--resume RUN --totl-timesteps 5 -> did you mean '--total-timesteps'?
--resume RUN --checkpoint bset -> holds no checkpoint 'bset', but last
--resume RUN extra -> unexpected argument 'extra'
{P} --env-kwargs sutton_barto_reward=no -> --env-kwargs sutton_barto_reward takes true or false, not 'no'
{P} --env-kwargs sutton_barto_reward=maybe -> takes true or false, not 'maybe'
{P} --env-kwargs sutton_barto_reward=true --env-kwargs sutton_barto_reward=false -> --env-kwargs names sutton_barto_reward twice
{P} --wrapper gymnasium.wrappers:TimeAwareObservation:flatten=yes -> flatten takes true or false, not 'yes'
{P} --wrapper gymnasium.wrappers:TimeAwareObservation:flatten=true,flatten=false -> names flatten twice
{D} --start-from nowhere -> nowhere is not a run: it has no config.toml
{D} --start-from RUN -> is a run of a2c, and dqn cannot start from its networks
--agent a2c --env CartPole-v1 --start-from RUN --network mlp:16 -> comes with the networks of
--agent a2c --env Acrobot-v1 --start-from RUN -> do not fit here
"""
EVALUATE = """
 -> the following arguments are required: RUN
--episodes 5 -> the following arguments are required: RUN
RUN other -> unexpected argument 'other'
nowhere -> nowhere is not a run: it has no config.toml
folder -> folder is not a run: it has no config.toml
some.toml -> some.toml is not a run: it has no config.toml
RUN --episodes 0 -> --episodes must be at least 1, got 0
RUN --episodes -3 -> --episodes must be at least 1, got -3
RUN --episodes x -> --episodes takes an integer, not 'x'
RUN --episodes 1.5 -> --episodes takes an integer, not '1.5'
RUN --episodes -> --episodes needs a value
RUN --episodes 99999999999999999999 -> --episodes must be an integer of 64 bits
RUN --seed -1 -> --seed must be at least 0, got -1
RUN --seed x -> --seed takes an integer, not 'x'
RUN --seed 99999999999999999999 -> --seed must be an integer of 64 bits
RUN --n-eval-episodes 5 -> did you mean '--episodes'?
RUN --eval-episodes 5 -> did you mean '--episodes'?
RUN --checkpoint bset -> holds no checkpoint 'bset', but last
RUN --checkpoint ../last -> holds no checkpoint '../last', but last
RUN --json=yes -> --json takes no value, got 'yes'
"""
FILES = {
    "some.toml": b"gamma = 0.9\n", "broken.toml": b"gamma = = 3", "latin.toml": b"gamma = 0.9 # caf\xe9\n",
    "list.toml": b"gamma = [1, 2]\n", "word.toml": b'num_steps = "many"\n', "slip.toml": b"gama = 0.9\n",
    "module.toml": b'agent = "dqn"\nenv = "evil:World-v0"\n', "agent.toml": b'agent = ["dqn"]\nenv = "CartPole-v1"\n',
    "table.toml": b"hyperparameters = 3\n", "env.toml": b"env = 5\n",
}  # fmt: skip


def rows(table: str) -> list[tuple[str, str]]:
    return [tuple(line.split(" -> ")) for line in table.strip("\n").splitlines()]  # type: ignore[misc]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with files of settings, a module that must not be imported, and a finished run."""
    folder = tmp_path_factory.mktemp("mistakes")
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    (folder / "evil.py").write_text("open('it_ran', 'w').close()\n")
    words = f"--agent a2c --env CartPole-v1 --network mlp:8 --total-timesteps 20 --eval-episodes 1 --run-dir {folder}"
    assert train.main(shlex.split(words)) == 0
    (run,) = folder.glob("CartPole-v1/a2c/*")
    run.rename(folder / "run")
    shutil.rmtree(folder / "CartPole-v1")
    return folder


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """Time and content of everything in a folder."""
    found = {}
    for place in folder.rglob("*"):
        content = hashlib.sha256(place.read_bytes()).hexdigest() if place.is_file() else ""
        found[str(place)] = (place.stat().st_mtime_ns, content)
    return found


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [(train, *row) for row in rows(TRAIN)] + [(evaluate, *row) for row in rows(EVALUATE)],
    ids=lambda value: value if isinstance(value, str) else value.__name__.rpartition(".")[2],
)
def test_a_mistake_is_one_line_that_names_it(command, words, message, made, capsys, monkeypatch):
    monkeypatch.chdir(made)
    monkeypatch.syspath_prepend(str(made))
    before = state(made)
    code = command.main([word.replace("RUN", "run") for word in shlex.split(words)])
    shown = capsys.readouterr()
    assert code == 2, shown.err
    assert shown.err.startswith("rl_lab: ")
    assert len(shown.err.splitlines()) == 1, shown.err
    assert message in shown.err
    assert state(made) == before


def test_there_are_many_mistakes():
    both = [*rows(TRAIN), *rows(EVALUATE)]
    assert len(set(both)) == len(both) >= 150
