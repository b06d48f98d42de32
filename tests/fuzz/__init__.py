"""Random programs run twice, with torch's optimizers and with ours; they must do the same, and neither may crash.

A program is a list of lines of Python over the few helpers of `verbs`, so that every failure is a script to read.
`world` runs a program in two worlds at once and compares them after every line, `children` runs programs in processes
that may die, `draw` makes programs from seeds, `shrink` makes a failing one short.

``python -m fuzz --count 10000`` tries that many seeds; ``python -m fuzz --seed 7`` prints that program and its outcome.
"""
