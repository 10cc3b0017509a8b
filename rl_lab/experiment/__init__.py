"""Agents and runs: the base class of agents, environments, run directory, settings, driver, evaluation, analysis."""

from rl_lab.experiment.agent import Agent, find_agent
from rl_lab.experiment.config import setting
from rl_lab.experiment.driver import load_run, train
from rl_lab.experiment.evaluation import Evaluation, evaluate
from rl_lab.experiment.faults import Fault
from rl_lab.experiment.sweeps.sweep import sweep

__all__ = ["Agent", "Evaluation", "Fault", "evaluate", "find_agent", "load_run", "setting", "sweep", "train"]
