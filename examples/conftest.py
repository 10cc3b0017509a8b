"""`python -m pytest examples` runs every example; `--full` runs the learning ones with every seed of their tables."""

collect_ignore = ["torch_style", "learning_curves.py", "readme_pictures.py"]  # these have no tests of their own
