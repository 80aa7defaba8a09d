"""Tasks, scores and feedback, for the student in the notebook and for nbgrader.

Reading order: answers, guard, tasks, misconceptions, tables, doctor, predict, lab; then what
only the instructor runs: build, nbgrader_support. One module ``labNN`` per lab declares its
scenes, predictions and tasks. No solution is stored here: what is right is computed.
"""
