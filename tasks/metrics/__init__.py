"""What figures are made of: scores, curves, intervals, and the verdict that they support.

Arrays in, numbers out: nothing here knows of torch, of files or of requests.
"""
