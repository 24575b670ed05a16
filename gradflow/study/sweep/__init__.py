"""A sweep: one job for each combination of the values of several flags of a study.

`gradflow.study.sweep.command` has the command ``gradflow sweep``.
"""
