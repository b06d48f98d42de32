"""Runs random programs twice, with torch's optimizers and with ours: results must agree, and nothing may crash.

A program is a list of lines of Python that use the helpers in `verbs`, so every failure is a readable script.  `world`
runs a program in two worlds side by side and compares them, `children` runs programs in processes that may die, `draw`
makes programs from seeds, and `shrink` shortens a failing one.

``python -m fuzz --count 10000`` tries that many seeds; ``python -m fuzz --seed 7`` prints that program and its outcome.
"""
