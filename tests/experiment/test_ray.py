"""Sweeps on a Ray cluster of two nodes on this machine: the same numbers as locally, also after a node was lost."""

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from rl_lab.experiment.sweeps.cluster import import_ray
from rl_lab.experiment.sweeps.sweep import carry_out_sweep, make_sweep, open_sweep
from rl_lab.experiment.sweeps.table import NoTable
from rl_lab.testing import content

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install 'ray[default]'")

SHORT = {"agent": "a2c", "env": "CartPole-v1", "eval_episodes": 3, "stop_return": "none", "checkpoint_frequency": 2000}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes with one core each; the driver is on the head, which has none. The token is one of this test alone."""
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import_ray()
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
    yield made, nodes
    ray.shutdown()
    made.shutdown()
    del os.environ["RAY_AUTH_TOKEN"]


def checksums(sweep: Path) -> dict[str, str]:
    """The checksum of the last state of each run, by its place in the sweep."""
    files = sweep.rglob("checkpoints/last/state.json")
    return {str(file.parents[2].relative_to(sweep)): json.loads(file.read_text())["checksum"] for file in files}


def run(**settings):
    return carry_out_sweep(make_sweep({**SHORT, **settings}), NoTable())


def test_a_sweep_over_two_nodes_gives_the_numbers_of_this_machine(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    local = run(seeds=3, total_timesteps=3000, run_dir="here")
    there = run(seeds=3, total_timesteps=3000, run_dir="there", executor="ray", store=(tmp_path / "store").as_uri())
    assert not local.failures
    assert not there.failures
    assert there.statistics == local.statistics
    assert checksums(there.path) == checksums(local.path)
    assert len(checksums(local.path)) == 3


def test_neat_evolves_the_same_champion_on_the_cluster(cluster, tmp_path, monkeypatch):
    """Also with another number of environments in each process, whose episodes end in another order."""
    from rl_lab.agents.neat.agent import NEAT

    monkeypatch.setenv("RAY_ADDRESS", cluster[0].address)

    def evolve(num_envs: int, **settings):
        agent = NEAT(
            "CartPole-v1", backend="gymnasium", num_envs=num_envs, preset=False, population=20, champion_episodes=3, **settings
        )
        metrics = [agent.step() for _ in range(3)]
        return content(agent.state_dict()), metrics

    local, numbers = evolve(4)
    there, told = evolve(2, evaluation="ray")
    assert numbers == told
    assert local == there


def test_an_interrupted_sweep_continues_on_the_cluster(cluster, tmp_path, monkeypatch):
    """SIGTERM ends the sweep with its code, although Ray handles that signal itself; the runs go on from their checkpoints."""
    monkeypatch.chdir(tmp_path)
    made, _ = cluster
    settings = {**SHORT, "seeds": 2, "total_timesteps": 60_000, "run_dir": "there", "executor": "ray", "address": made.address}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "rl_lab.sweep", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 120
    while len(list(tmp_path.glob("there/*/*/*/*/checkpoints/last/state.json"))) < 2:
        assert time.monotonic() < until
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 143, err
    assert "continue: python -m rl_lab.sweep --resume" in out
    assert err.strip() == "rl_lab: interrupted"
    (path,) = tmp_path.glob("there/*/*/*-sweep")
    assert not list(path.glob("s*/result.json"))
    there = carry_out_sweep(open_sweep(path, {}), NoTable())
    assert not there.failures
    assert checksums(path) == checksums(run(seeds=2, total_timesteps=60_000, run_dir="here").path)


def test_a_sweep_survives_the_loss_of_a_node(cluster, tmp_path, monkeypatch):
    """A node is killed once each of its two runs has a checkpoint; all runs end as if nothing had happened."""
    monkeypatch.chdir(tmp_path)
    made, nodes = cluster
    killed = []

    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            if len(list(tmp_path.glob("there/*/*/*/*/checkpoints/last/state.json"))) == 2:
                killed.append(len(list(tmp_path.glob("there/*/*/*/*/result.json"))))
                made.remove_node(nodes[1], allow_graceful=False)
                return
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    there = run(seeds=2, total_timesteps=60_000, run_dir="there", executor="ray")
    killer.join()
    assert killed == [0]  # both runs were going on
    assert not there.failures
    local = run(seeds=2, total_timesteps=60_000, run_dir="here")
    assert checksums(there.path) == checksums(local.path)


def test_a_cluster_of_this_machine_listens_on_the_loopback_interface_alone():
    program = """
import psutil
from rl_lab.experiment.sweeps.cluster import connect
ray = connect(cores=1)
from ray._raylet import get_authentication_mode, AuthenticationMode
assert get_authentication_mode() == AuthenticationMode.TOKEN
family = [psutil.Process(), *psutil.Process().children(recursive=True)]
found = {c.laddr.ip for p in family for c in p.net_connections("tcp") if c.status == "LISTEN"}
print(sorted(found))
ray.shutdown()
assert found and found <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
"""
    token = {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **token}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
