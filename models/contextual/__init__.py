"""Detectors that judge a clip within its video, by temporal convolution or attention; see `..context`."""
