"""Disks that are full, read-only or gone: the run says so in one line, the last good checkpoint stays, and nothing hangs."""

import errno
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest

from rl_lab import evaluate, train
from rl_lab.experiment import logger as logger_module
from rl_lab.experiment.analysis import read_events
from rl_lab.experiment.checkpoint import load_checkpoint
from rl_lab.experiment.logger import Logger, cut_log, log_sizes
from rl_lab.experiment.run import Run
from tests import kills
from tests.disk import Disk
from tests.runs import only_run

A2C = ["--agent", "a2c", "--env", "CartPole-v1", "--network", "mlp:8", "--num-envs", "2", "--total-timesteps", "300"]
A2C += ["--checkpoint-frequency", "100", "--eval-frequency", "90", "--keep-best", "--log-frequency", "20"]
A2C += ["--short-episodes", "1", "--eval-episodes", "1"]


def ended_well(code, shown, allowed):
    assert code in allowed, (code, shown.err)
    assert "Traceback" not in shown.err + shown.out
    assert len(shown.err.splitlines()) == (0 if code == 0 else 1), shown.err


CODES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES)
FEW = ["--total-timesteps", "160", "--checkpoint-frequency", "80", "--eval-frequency", "70", "--keep-best"]
FEW += ["--log-frequency", "20", "--short-episodes", "1", "--eval-episodes", "1", "--stop-return", "none"]
SMALL_A2C = ["--agent", "a2c", "--env", "CartPole-v1", "--network", "mlp:8", "--num-envs", "2", *FEW]
SMALL_NEAT = ["--agent", "neat", "--env", "CartPole-v1", "--population", "10", "--champion-episodes", "2", *FEW]


def resume_words() -> list[str]:
    return ["--resume", str(only_run()), "--total-timesteps", "160"]


def states(run: Path, lost_best: bool) -> dict[str, bytes]:
    """The states in the checkpoints of a run; only that of the last one with ``lost_best``, when another one may be the best."""
    if not lost_best:
        return {str(file.relative_to(run)): file.read_bytes() for file in run.glob("checkpoints/*/state.*")}
    last = load_checkpoint(run / "checkpoints/last")
    return {name: pickle.dumps(part) for name, part in last.items() if name != "driver"}


def logged(run: Path, lost_best: bool) -> list[tuple[str, int, float]]:
    """The log of a run, but for speeds and, with ``lost_best``, for evaluations: the one at the end may be of another state."""
    left_out = ("charts/SPS", "eval/") if lost_best else ("charts/SPS",)
    return sorted(event for event in kills.events(run) if not event[0].startswith(left_out))


@pytest.mark.parametrize("program", ["train", "resume", "neat"])
def test_every_operation_may_fail(program, workplace, capsys, full, record_property):
    """Count the operations of a command on files, then let each fail in its turn, once or from then on. Nothing is lost.

    A run that reached its end has the checkpoints of an undisturbed one; any other one is resumed and reaches the same end. Where the
    best state could not be written and the command said so, a later one is the best. The log is complete unless the command said otherwise.
    """
    warnings.simplefilter("ignore")
    begin = {"train": SMALL_A2C, "resume": [*SMALL_A2C, "--total-timesteps", "100"], "neat": SMALL_NEAT}[program]
    assert train.main(begin) == 0
    if program == "resume":
        shutil.copytree("runs", "before")
    else:
        shutil.rmtree("runs")
    words = resume_words() if program == "resume" else begin
    with Disk(workplace / "runs").watching() as disk:
        assert train.main(words) == 0
    operations = disk.done
    assert operations > 100
    reference = workplace / "undisturbed"
    only_run().rename(reference)
    endings: Counter[int] = Counter()
    resumed = 0
    faults = [(number, code, 1) for number in range(operations) for code in CODES]
    if program == "neat":  # it has several times the operations of the others, of few kinds
        faults = faults[::6]
    faults += [(number, CODES[number % 5], 10**9) for number in range(operations)]
    for number, code, count in faults if full else faults[:: len(faults) // 25]:
        shutil.rmtree("runs", ignore_errors=True)
        if program == "resume":
            shutil.copytree("before", "runs")
            words = resume_words()
        capsys.readouterr()

        def fail(done: int) -> None:
            if number <= done < number + count:
                raise OSError(code, os.strerror(code))

        with Disk(workplace / "runs", fail).watching():
            ending = train.main(words)
        shown = capsys.readouterr()
        endings[ending] += 1
        ended_well(ending, shown, (0, 4, 2) if code == errno.EACCES else (0, 4))
        runs = [found.parent for found in Path("runs").glob("*/*/*/config.toml")]
        held = bool(runs) and Run.open(runs[0]).holds("last")
        if program == "resume":
            assert held, "the checkpoint before is lost"
        if ending and held:
            resumed += 1
            assert train.main(resume_words()) == 0, (number, code, count)
        if ending and not held:
            continue
        lost_best = "the last good checkpoint stays" in shown.out
        assert states(only_run(), lost_best) == states(reference, lost_best), (number, code, count)
        if "training continues without it" not in shown.out:
            assert logged(only_run(), lost_best) == logged(reference, lost_best), (number, code, count)
        elif count == 1:  # a disk that refuses everything does not let half a record be cut off, either
            logged(only_run(), lost_best)  # fails unless each file ends with a whole record
        if full and sum(endings.values()) % 200 == 0:
            with capsys.disabled():
                print(f"\n{program}: {sum(endings.values())} faults", flush=True)
    assert endings[0]
    assert endings[4]
    record_property("faults", f"{sum(endings.values())} at {operations} operations, {resumed} resumed: {dict(endings)}")
    print(
        f"{program}: {sum(endings.values())} faults at {operations} operations, {resumed} runs resumed, exit codes {dict(endings)}"
    )


def test_a_log_that_cannot_be_written_is_said_once(workplace, capsys):
    said: list[str] = []
    log = Logger(workplace / "nowhere", None, said.append)
    for step in range(3):
        log.record({"a": 1.0}, step)
    log.settle()
    log.close()
    assert len(said) == 1
    assert "training continues without it" in said[0]


def test_a_log_is_what_tensorboardx_writes(workplace):
    """The format is TensorFlow's: length, masked checksum, event, masked checksum."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter("theirs")
    ours = Logger(workplace)
    for step in range(5):
        writer.add_scalar("a/b", step * 0.1, step)
        ours.record({"a/b": step * 0.1}, step)
    writer.close()
    ours.close()
    mine, other = read_events(workplace), read_events(workplace / "theirs")
    assert mine[["tag", "step", "value"]].equals(other[["tag", "step", "value"]])
    (file,) = workplace.glob("events*")
    (theirs,) = Path("theirs").glob("events*")
    assert (
        file.stat().st_size == theirs.stat().st_size
    )  # one tag at a time: a point with several is one event here, not several


def test_a_log_is_cut_to_its_length_at_the_checkpoint(workplace):
    log = Logger(workplace)
    log.record({"a": 1.0}, 1)
    sizes = log.settle()
    log.record({"a": 2.0}, 2)
    log.close()
    later = Logger(workplace, 2)
    later.record({"a": 3.0}, 2)
    later.close()
    assert len(log_sizes(workplace)) == 2
    for nonsense in (None, [], {"../config.toml": 0}, {"events": -1}, {"events": "x"}, 7):
        if nonsense != {"../config.toml": 0}:
            cut_log(workplace, nonsense)
            assert len(log_sizes(workplace)) == 2
    cut_log(workplace, {**sizes, "../precious": 0})
    assert log_sizes(workplace) == sizes
    assert read_events(workplace).step.tolist() == [1]


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 4), (errno.EACCES, 2)])
def test_a_log_that_cannot_be_cut_ends_the_command(number, code, workplace, capsys, monkeypatch):
    """The records after the checkpoint would come a second time, so nothing is trained; a later resume does it all."""
    assert train.main([*A2C, "--keep-checkpoints", "2", "--no-keep-best"]) == 0
    before = list(kills.events(only_run()))
    words = ["--resume", str(only_run()), "--checkpoint", "step-000000000200"]

    def truncate(path, size):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "truncate", truncate)
        capsys.readouterr()
        assert train.main(words) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot be cut to its length at the checkpoint: {os.strerror(number)}" in line
    assert list(kills.events(only_run())) == before
    assert train.main(words) == 0
    assert logged(only_run(), False) == sorted(event for event in before if event[0] != "charts/SPS")


def test_the_log_flushes_by_itself(workplace, monkeypatch):
    monkeypatch.setattr(logger_module, "FLUSH_SECONDS", 0.0)
    log = Logger(workplace)
    log.record({"a": 1.0}, 1)
    assert read_events(workplace).step.tolist() == [1]
    log.close()


def test_a_run_directory_that_vanishes(workplace, capsys, monkeypatch):
    from rl_lab.agents.a2c import A2C as Agent

    step = Agent.step

    def vanishing(self):
        if self.timesteps == 150:
            shutil.rmtree("runs")
        return step(self)

    monkeypatch.setattr(Agent, "step", vanishing)
    assert train.main(A2C) == 4
    shown = capsys.readouterr()
    assert "the run directory is gone" in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out.count("training continues") == 1
    assert not Path("runs").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs resource limits")
@pytest.mark.parametrize("size", [100, 3_000, 30_000])
def test_files_that_may_not_grow(size, workplace):
    """A quota: files of the run above a size cannot be written."""
    import resource

    words = [sys.executable, "-m", "rl_lab.train", *A2C, "--log-frequency", "1"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))  # noqa: E731
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, preexec_fn=limit)
    assert done.returncode in (0, 4), done.stderr
    assert len(done.stderr.splitlines()) <= 1, done.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_an_output_that_nobody_reads(workplace):
    words = f"{sys.executable} -m rl_lab.train {' '.join(A2C)} 2>errors | head -1"
    subprocess.run(["bash", "-c", words], timeout=60, check=True)
    assert Path("errors").read_text() == ""
    assert load_checkpoint(only_run() / "checkpoints" / "last")["timesteps"] == 300
    with Path("/dev/full").open("w") as nowhere:
        done = subprocess.run([sys.executable, "-m", "rl_lab.train", *A2C], stdout=nowhere, stderr=subprocess.PIPE, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")


def test_older_checkpoints_are_kept_and_offered(workplace, capsys):
    assert train.main([*A2C, "--keep-checkpoints", "3"]) == 0
    run = only_run()
    assert Run.open(run).older() == ["step-000000000300", "step-000000000200", "step-000000000100"]
    whole = (run / "checkpoints/last/state.safetensors").read_bytes()
    for name in ("last", "best"):
        file = run / "checkpoints" / name / "state.safetensors"
        content = file.read_bytes()
        file.unlink()  # the copies have the same content
        file.write_bytes(content[:-1])
    capsys.readouterr()
    assert evaluate.main([str(run)]) == 2
    line = capsys.readouterr().err
    assert "an older one is whole: --checkpoint step-000000000300" in line
    assert evaluate.main([str(run), "--checkpoint", "step-000000000200", "--episodes", "1"]) == 0
    assert "trained for 200 steps" in capsys.readouterr().out
    assert evaluate.main([str(run), "--checkpoint", "step-7"]) == 2
    assert "holds no checkpoint 'step-7', but" in capsys.readouterr().err
    (run / "checkpoints/best/state.safetensors").write_bytes(b"")
    shutil.rmtree(run / "checkpoints/best")
    assert train.main(["--resume", str(run), "--checkpoint", "step-000000000200"]) == 0
    assert Run.open(run).older()[0] == "step-000000000300"
    assert (run / "checkpoints/last/state.safetensors").read_bytes() == whole
    steps = read_events(run)
    assert not steps[steps.tag == "charts/SPS"].step.duplicated().any()


def test_an_older_checkpoint_leaves_the_future_behind(workplace):
    assert train.main([*A2C, "--keep-checkpoints", "2", "--no-keep-best"]) == 0
    run = only_run()
    words = ["--resume", str(run), "--checkpoint", "step-000000000200", "--total-timesteps", "250"]
    assert train.main(words) == 0
    assert Run.open(run).older() == ["step-000000000250", "step-000000000200"]
    assert load_checkpoint(run / "checkpoints/last")["timesteps"] == 250


def test_nothing_infinite_is_saved(workplace, monkeypatch, capsys):
    from rl_lab.agents.a2c import A2C as Agent

    state_dict = Agent.state_dict
    for name, value in (("critic", float("inf")), ("optimizer", float("nan")), ("timesteps", None)):

        def strange(self, name=name, value=value):
            state = state_dict(self)
            if self.timesteps >= 200 and value is not None:
                state["planted"] = {"deep": [1.0, value]}
            return state

        shutil.rmtree("runs", ignore_errors=True)
        monkeypatch.setattr(Agent, "state_dict", strange)
        capsys.readouterr()
        code = train.main([*A2C, "--no-keep-best"])
        if value is None:
            assert code == 0
            continue
        assert code == 3
        assert "planted/deep/1 is not finite at step 200: the last checkpoint is intact" in capsys.readouterr().err
        assert load_checkpoint(only_run() / "checkpoints" / "last")["timesteps"] == 100


@pytest.mark.parametrize("damage", ["missing", "altered", "cut", "a folder"])
def test_a_damaged_record_is_said(damage, workplace, capsys):
    """Without the record of a checkpoint nobody can tell whether config.toml was changed."""
    assert train.main([*A2C, "--no-keep-best"]) == 0
    run = only_run()
    record = run / "checkpoints/last/run.json"
    content = record.read_bytes()
    shutil.rmtree(run / "checkpoints/step-000000000300")  # it has the same files
    record.unlink()
    if damage == "a folder":
        record.mkdir()
    elif damage != "missing":
        record.write_bytes(content.replace(b"0.99", b"0.5") if damage == "altered" else content[:-9])
    line = "last/run.json is damaged or missing: whether config.toml was changed cannot be told"
    capsys.readouterr()
    assert evaluate.main([str(run), "--episodes", "1"]) == 0
    assert line in capsys.readouterr().err
    assert train.main(["--resume", str(run), "--total-timesteps", "400"]) == 0
    assert line in capsys.readouterr().out
    assert evaluate.main([str(run), "--episodes", "1"]) == 0
    assert capsys.readouterr().err == ""


def test_what_a_killed_writer_left_is_finished_or_removed(workplace):
    assert train.main([*A2C, "--keep-checkpoints", "2"]) == 0
    run = only_run()
    whole = {str(file.relative_to(run)) for file in run.rglob("*") if "events" not in file.name}
    (run / "checkpoints/.last.77.new").mkdir()
    (run / ".config.toml.77.new").write_bytes(b"half")
    shutil.rmtree(run / "checkpoints/step-000000000300")
    (run / "checkpoints/best").rename(run / "checkpoints/.best.77.old")
    assert train.main(["--resume", str(run)]) == 0
    assert {str(file.relative_to(run)) for file in run.rglob("*") if "events" not in file.name} == whole


def test_disks_without_hard_links(workplace, monkeypatch):
    def link(*given, **named):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    assert train.main(A2C) == 0
    assert Run.open(only_run()).older() == ["step-000000000300", "step-000000000200"]
    assert load_checkpoint(only_run() / "checkpoints/step-000000000200")["timesteps"] == 200


def test_a_damaged_best_state_does_not_stop_the_resume(workplace, capsys):
    assert train.main(SMALL_A2C) == 0
    run = only_run()
    for file in (run / "checkpoints" / "best").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:40])
    capsys.readouterr()
    assert train.main(["--resume", str(run), "--total-timesteps", "400"]) == 0
    shown = capsys.readouterr()
    assert "the next evaluation chooses the best state anew" in shown.out + shown.err
    assert "--checkpoint" not in shown.out + shown.err
    assert evaluate.main([str(run), "--episodes", "2"]) == 0


@pytest.mark.parametrize("name", ["/", "..", "../..", ".", "../checkpoints/last"])
def test_a_checkpoint_has_a_name_and_no_path(name, workplace, capsys):
    assert train.main(SMALL_A2C) == 0
    capsys.readouterr()
    assert evaluate.main([str(only_run()), "--checkpoint", name, "--episodes", "1"]) == 2
    assert "holds no checkpoint" in capsys.readouterr().err
