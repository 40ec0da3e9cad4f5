"""Features folders that lie elsewhere: at any URL that fsspec knows, such as ``s3://`` and ``gs://``.

All that reads features goes on reading local files: what is asked for is copied into a bounded folder of this machine.
"""
