"""Everything that touches the world: videos, feature files, data sets, training, scoring, evaluation, reports.

One stage, one module. Data flows ``videos -> decoding -> clips -> cache -> extraction (or importing) -> datasets ->
bags -> batches -> fitting -> training -> runs -> scoring -> evaluation -> page -> report``; a module imports only
stages before it, in the order that ``tests/test_package.py`` lists, and only ``cli`` knows them all.
"""
