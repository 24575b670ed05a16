"""What several studies share; a thing that one study uses stands with that study.

`runs` (from a seed to parameters, inputs and measurements), `cells` (from flags to a cell),
`fields` (of configurations), `curves` (axes and bands), `rates` (rows and sentences about curves),
`decisions` (from an interval to a verdict), `gain_sweep`, `trained` (trainings as datasets),
`outcomes` (what trained runs came to), `tuning` (a learning rate for each competitor), `probes`.
Papers import the package under the same name, by experiments/papers/_kit.py.
"""
