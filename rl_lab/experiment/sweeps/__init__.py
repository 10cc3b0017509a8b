"""Many runs: what a sweep consists of, where its runs are carried out, the table that shows them, and tuning.

In reading order: store, worker (one run), executors and cluster (where runs are carried out), table, sweep, tuning.
"""
