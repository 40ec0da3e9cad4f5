"""Everything that touches the world: videos, feature files, data sets, training, scoring, evaluation, reports.

One stage, one module. Data flows ``videos -> decoding -> clips -> cache -> extraction -> datasets -> bags -> runs ->
fitting -> training -> scoring -> evaluation -> page -> report``; a module imports only stages before it, and only
``cli`` knows them all.
"""
