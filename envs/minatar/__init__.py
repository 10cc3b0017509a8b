"""MinAtar's five games as native worlds: twins of the environments that the package minatar registers.

Young and Tian 2019, "MinAtar: An Atari-inspired testbed for thorough and reproducible reinforcement learning experiments". With equal
seeds and actions the observations, rewards and terminations are bitwise equal to those of minatar 1.0.15: the worlds draw from the same
Mersenne Twister in the same order. Ids end with v0 for all six actions and with v1 for the actions that have an effect in the game.

As in the package, the action is replaced by the previous one with probability ``sticky_action_prob``; a reset does not forget the
previous action; and ``difficulty_ramping`` makes Asterix, Seaquest and SpaceInvaders harder with time. No episode is truncated.
"""
