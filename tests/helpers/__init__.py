"""What tests share.

`footage`: videos whose frames carry their numbers, and what is wrong with real ones. `features`: a small data set of
feature files that a detector learns from in seconds. `evaluations`: results without a training. `numeric`: numeric
gradients, networks in NumPy, batches of all shapes.
"""
