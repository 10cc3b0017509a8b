"""`python -m pytest examples` runs every example; `--full` runs the learning ones with every seed of their tables."""

collect_ignore = ["torch_style", "learning_curves.py"]  # these have no tests of their own
