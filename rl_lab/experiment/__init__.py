"""Runs: directory, configuration, logging, checkpoints, the driver and evaluation."""
